import type { Logger } from "pino";
import { type Courier, CourierError, type CourierReport, type Delivery } from "../couriers/courier.ts";
import type { Actor } from "../domain/caller.ts";
import { decide, type OrderState } from "../domain/order.ts";
import { type CourierJob, UNANSWERED } from "../domain/order-delivery.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { DeliveryProvider, Door, OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Snapshot, Transactor } from "../log/transact.ts";
import type { CourierJobs } from "../projections/courier-jobs.ts";
import { type CourierReports, isCurrent, type Occasion, partnerOf } from "./courier-reports.ts";
import type { DeliveryRequests } from "./delivery-request.ts";

/** Deals with the providers: sends them what the log says is to be requested or called off, and records what they answer. */
export type CourierDesk = {
  readonly couriers: ReadonlyMap<DeliveryProvider, Courier>;
  /**
   * Asks the provider of an order's unanswered request, and the next when one refuses, until one has accepted or all have
   * refused. Leaves it as it is when the signal fires first, or the only provider is down: then somebody comes back to it.
   */
  settle(orderId: string, occasion: Occasion, signal: AbortSignal): Promise<Snapshot<OrderState>>;
  /** Calls off an order's courier, with the provider first. Throws a Refusal DELIVERY_NOT_CANCELLABLE, or Unavailable. */
  callOff(orderId: string, by: Actor, occasion: Occasion, signal: AbortSignal): Promise<Snapshot<OrderState>>;
  /** Asks the provider how an order's delivery stands, and records it. */
  refresh(orderId: string, occasion: Occasion, signal: AbortSignal): Promise<Snapshot<OrderState>>;
  /** Does what is left to do about an order: requests without an answer, couriers of an order that was called off or has got a driver of its own. */
  lookAfter(orderId: string, occasion: Occasion, signal: AbortSignal): Promise<void>;
  /** Takes what a webhook tells. When it resolves, all of it that matters is durable. */
  take(provider: DeliveryProvider, report: CourierReport, occasion: Occasion, signal: AbortSignal): Promise<void>;
  /** Resolves when nothing is under way any more. */
  stop(): Promise<void>;
};

export type CourierDeskOptions = {
  readonly couriers: readonly Courier[];
  readonly orders: Transactor<OrderState>;
  readonly requests: DeliveryRequests;
  readonly reports: CourierReports;
  readonly jobs: Pick<CourierJobs, "orderOf" | "noteCallOff" | "noteTold">;
  readonly now: () => Date;
  readonly logger: Logger;
  /** How long a provider may take to answer. */
  readonly patienceMs: number;
  /** For how long a request is repeated of which nothing is known, when there is nobody else to ask. */
  readonly giveUpMs: number;
};

const SYSTEM: Actor = { role: Role.SYSTEM, subject: "ordertrail" };
const TERMINAL: readonly unknown[] = ["DELIVERED", "CANCELLED", "RETURNING", "RETURNED"];

export function createCourierDesk(options: CourierDeskOptions): CourierDesk {
  const { orders, requests, reports, jobs, now, logger, patienceMs, giveUpMs } = options;
  const couriers = new Map(options.couriers.map((courier) => [courier.provider, courier]));
  const stopping = new AbortController();
  const background = new Set<Promise<void>>();

  async function read(orderId: string): Promise<Snapshot<OrderState>> {
    const snapshot = await orders.read(orderId);
    if (!snapshot) throw new Refusal("ORDER_NOT_FOUND", `there is no order ${orderId}`, { order_id: orderId });
    return snapshot;
  }

  function courierOf(provider: DeliveryProvider): Courier {
    const courier = couriers.get(provider);
    if (courier) return courier;
    throw notEnabled(provider, [...couriers.keys()]);
  }

  /** Calls a provider. What it takes too long for, is broken off or fails with another error than a CourierError, counts as unknown. */
  async function ask<Answer>(signal: AbortSignal, call: (signal: AbortSignal) => Promise<Answer>): Promise<Answer> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
    try {
      return await call(limit);
    } catch (error) {
      if (error instanceof CourierError) throw error;
      throw new CourierError("unknown", limit.aborted ? "timeout" : "fault", { cause: error });
    }
  }

  async function decline(orderId: string, job: CourierJob, reason: string, byProvider: boolean, failOver: boolean, occasion: Occasion) {
    const { provider, attempt } = job;
    logger.info({ order_id: orderId, provider: DeliveryProvider[provider], attempt, reason }, "a provider does not deliver");
    const actor = byProvider ? partnerOf(provider) : SYSTEM;
    // Its webhook may have come meanwhile, and told that it does.
    return await reports.record(
      { orderId, provider, attempt, unanswered: true },
      { type: "DeclineDelivery", attempt, reason: reason === "" ? "refused" : reason, failOver },
      actor,
      occasion,
    );
  }

  /** What becomes of a request that a provider has not answered well; undefined: it stays as it is. */
  async function afterFailure(orderId: string, job: CourierJob, error: CourierError, failOver: boolean, occasion: Occasion) {
    const { provider, attempt } = job;
    const about = { order_id: orderId, provider: DeliveryProvider[provider], attempt, code: error.code, kind: error.kind };
    if (error.kind === "misconfigured") logger.error({ ...about, err: error }, "a provider refuses our credentials or settings");
    if (error.kind === "refused" || error.kind === "misconfigured")
      return await decline(orderId, job, error.code, error.kind === "refused", failOver, occasion);
    const isNext = failOver && job.alternatives.length > 0;
    const isOld = now().getTime() - job.requestedAt.getTime() >= giveUpMs;
    logger.warn({ ...about, err: error }, "a provider does not answer");
    if (!isNext && !isOld) return undefined;
    return await decline(orderId, job, error.kind === "unknown" ? UNANSWERED : error.code, false, failOver, occasion);
  }

  async function settleWith(orderId: string, failOver: boolean, occasion: Occasion, signal: AbortSignal): Promise<Snapshot<OrderState>> {
    for (;;) {
      const snapshot = await read(orderId);
      const { job } = snapshot.state;
      if (job?.status !== "REQUESTED") return snapshot;
      const { provider, attempt, quoteId } = job;
      let delivery: Delivery;
      try {
        const request = await requests(snapshot.state, attempt);
        const courier = courierOf(provider);
        delivery = await ask(signal, (limit) => courier.create(request, quoteId, limit));
      } catch (error) {
        if (signal.aborted) return snapshot;
        if (error instanceof Refusal) {
          await decline(orderId, job, error.reason.toLowerCase(), false, failOver && error.reason === "PROVIDER_NOT_ENABLED", occasion);
          continue;
        }
        if (!(error instanceof CourierError)) throw error;
        const after = await afterFailure(orderId, job, error, failOver, occasion);
        if (!after) return snapshot;
        continue;
      }
      await reports.apply({ orderId, provider, attempt, delivery, asked: true }, occasion);
      const after = await read(orderId);
      if (!isCurrent(after.state, provider, attempt)) await leaveNone(orderId, provider, delivery, signal);
      if (after.state.job?.attempt === attempt && after.state.job.status === "REQUESTED") return after;
    }
  }

  /** A delivery that was made for a request which others had given up meanwhile is nobody's. */
  async function leaveNone(orderId: string, provider: DeliveryProvider, { providerDeliveryId }: Delivery, signal: AbortSignal) {
    const about = { order_id: orderId, provider: DeliveryProvider[provider], provider_delivery_id: providerDeliveryId };
    try {
      await ask(signal, (limit) => courierOf(provider).cancel(providerDeliveryId, limit));
      logger.info(about, "a delivery was made for a request that had been given up; it is called off");
    } catch (error) {
      logger.error({ ...about, err: error }, "a delivery was made for a request that had been given up, and cannot be called off");
    }
  }

  /** Has the provider call off a delivery, and records it. */
  async function callOffWith(
    orderId: string,
    { provider, attempt }: { readonly provider: DeliveryProvider; readonly attempt: number },
    providerDeliveryId: string,
    by: Actor,
    occasion: Occasion,
    signal: AbortSignal,
  ): Promise<Snapshot<OrderState>> {
    const name = String(DeliveryProvider[provider]);
    // The provider's own report of it may be here before its answer is.
    await jobs.noteCallOff(orderId, attempt, now());
    try {
      await ask(signal, (limit) => courierOf(provider).cancel(providerDeliveryId, limit));
    } catch (error) {
      if (!(error instanceof CourierError)) throw error;
      if (error.kind === "refused")
        throw new Refusal(
          "DELIVERY_NOT_CANCELLABLE",
          `${name} does not let the delivery of order ${orderId} be cancelled any more (${error.code})`,
          { order_id: orderId, delivery_provider: name, provider_code: error.code },
        );
      throw new Unavailable(`${name} cannot be told at present that the courier is called off: try again`, { cause: error });
    }
    return await recordCallOff(orderId, attempt, by, occasion);
  }

  async function recordCallOff(orderId: string, attempt: number, actor: Actor, occasion: Occasion) {
    const { method, door, correlationId, requestId = "", origin } = occasion;
    return await orders.transact(orderId, {
      ...{ method, door, correlationId, actor, requestId, origin },
      decide: (state) => (state ? decide(state, { type: "CallOffDelivery", attempt }, actor) : []),
    });
  }

  async function callOffUnanswered(state: OrderState, left: CourierJob["unanswered"][number], occasion: Occasion, signal: AbortSignal) {
    const { orderId } = state;
    try {
      // The same request again is the same delivery, so that this finds it, if the provider took it on.
      const request = await requests(state, left.attempt);
      const delivery = await ask(signal, (limit) => courierOf(left.provider).create(request, "", limit));
      await callOffWith(orderId, left, delivery.providerDeliveryId, SYSTEM, occasion, signal);
    } catch (error) {
      const isRefused = error instanceof CourierError && error.kind === "refused";
      if (!isRefused) throw error;
      await recordCallOff(orderId, left.attempt, SYSTEM, occasion);
    }
  }

  /** Goes on with a request that came about by the way; whoever told of it is not kept waiting. */
  function settleSoon(orderId: string, occasion: Occasion): void {
    const settling = settleWith(orderId, true, occasion, stopping.signal).then(
      () => undefined,
      (error: unknown) =>
        logger.warn({ err: error, order_id: orderId }, "a request for a courier could not be made yet; it will be tried again"),
    );
    background.add(settling);
    void settling.then(() => background.delete(settling));
  }

  const desk: CourierDesk = {
    couriers,
    settle: (orderId, occasion, signal) => settleWith(orderId, true, occasion, signal),

    async callOff(orderId, by, occasion, signal) {
      // Whether there is a delivery to cancel, only the provider knows.
      const snapshot = await settleWith(orderId, false, occasion, signal);
      const { job } = snapshot.state;
      if (job?.status === "REQUESTED")
        throw new Unavailable(`${DeliveryProvider[job.provider]} has not answered yet whether it delivers: try again`);
      if (job?.status !== "ACCEPTED" || !job.delivery) return snapshot;
      return await callOffWith(orderId, job, job.delivery.providerDeliveryId, by, occasion, signal);
    },

    async refresh(orderId, occasion, signal) {
      const snapshot = await read(orderId);
      const { job } = snapshot.state;
      if (job?.status === "REQUESTED") return await settleWith(orderId, true, occasion, signal);
      if (job?.status !== "ACCEPTED" || !job.delivery) return snapshot;
      const { provider, attempt } = job;
      const { providerDeliveryId } = job.delivery;
      const delivery = await ask(signal, (limit) => courierOf(provider).get(providerDeliveryId, limit));
      const after = await reports.apply({ orderId, provider, attempt, delivery, asked: true }, occasion);
      return after?.state.job?.status === "REQUESTED" ? await settleWith(orderId, true, occasion, signal) : (after ?? snapshot);
    },

    async lookAfter(orderId, occasion, signal) {
      const faults: unknown[] = [];
      // A provider that is down must not hold up what another has to be told.
      const step = async (work: () => Promise<unknown>) => {
        signal.throwIfAborted();
        await work().catch((error: unknown) => faults.push(error));
      };
      const { state: before } = await read(orderId);
      if (before.job?.status === "REQUESTED") await step(() => settleWith(orderId, true, occasion, signal));
      const { state } = await read(orderId);
      const isOver = state.status === OrderStatus.CANCELLED || state.status === OrderStatus.DELIVERED;
      if (state.job?.status === "ACCEPTED" && (isOver || state.job.overruled))
        await step(() => desk.callOff(orderId, SYSTEM, occasion, signal));
      for (const left of state.job?.unanswered ?? []) await step(() => callOffUnanswered(state, left, occasion, signal));
      if (faults.length > 0) throw faults.length === 1 ? faults[0] : new AggregateError(faults, "several providers could not be told");
    },

    async take(provider, report, occasion, signal) {
      const about = { provider: DeliveryProvider[provider], kind: report.kind, report_id: report.reportId };
      const orderId = report.orderId ?? (await jobs.orderOf(provider, report.providerDeliveryId));
      const snapshot = orderId === undefined ? undefined : await orders.read(orderId);
      if (orderId === undefined || !snapshot) {
        logger.info(about, "a webhook tells of a delivery that is not known here");
        return;
      }
      const { job } = snapshot.state;
      const attempt = report.attempt ?? (job?.delivery?.providerDeliveryId === report.providerDeliveryId ? job.attempt : undefined);
      if (!report.delivery || attempt === undefined) {
        logger.info({ ...about, order_id: orderId }, "a webhook tells nothing that matters here");
        return;
      }
      let { delivery } = report;
      let asked = false;
      if (!courierOf(provider).signsWebhooks && TERMINAL.includes(delivery.status) && job?.attempt === attempt) {
        try {
          delivery = await ask(signal, (limit) => courierOf(provider).get(report.providerDeliveryId, limit));
          asked = true;
        } catch (error) {
          if (!(error instanceof CourierError)) throw error;
          throw new Unavailable("what the webhook tells cannot be confirmed at present: send it again", { cause: error });
        }
      }
      // Statuses that come late, the table of moves judges; who the courier is, only the newest report knows.
      const isLate = delivery.courier && report.happenedAt && !asked && !(await jobs.noteTold(orderId, attempt, report.happenedAt));
      if (isLate) delivery = { ...delivery, courier: undefined };
      const after = await reports.apply({ orderId, provider, attempt, delivery, asked }, occasion);
      if (after?.state.job?.status === "REQUESTED" && after.state.job.attempt !== attempt) settleSoon(orderId, occasion);
    },

    async stop() {
      stopping.abort(new Unavailable("the server is shutting down"));
      await Promise.all(background);
    },
  };
  return desk;
}

/** What a provider that is not set up is refused with. */
export function notEnabled(provider: DeliveryProvider, enabled: readonly DeliveryProvider[]): Refusal {
  const names = enabled.map((known) => String(DeliveryProvider[known])).join(", ");
  const name = String(DeliveryProvider[provider]);
  return new Refusal("PROVIDER_NOT_ENABLED", `${name} is not set up here; ${names === "" ? "no provider is" : `these are: ${names}`}`, {
    delivery_provider: name,
    enabled: names.replaceAll(" ", ""),
  });
}

/** The occasion of what Ordertrail does by itself. */
export const BY_ITSELF: Omit<Occasion, "correlationId"> = { method: "courier follow-up", door: Door.INTERNAL };
