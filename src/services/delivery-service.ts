import { setTimeout as pause } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { mayAccess } from "../access/permissions.ts";
import { CourierError, type Quote } from "../couriers/courier.ts";
import { decide, type OrderState, orderStream } from "../domain/order.ts";
import { isOpen, type RequestDelivery } from "../domain/order-delivery.ts";
import { showsLocation } from "../domain/order-location.ts";
import { orderNotFound } from "../domain/order-refusals.ts";
import { Refusal } from "../domain/refusal.ts";
import { DeliveryProvider } from "../gen/ordertrail/events/v1/values_pb.js";
import {
  type CourierRequestSchema,
  DeliveryPolicy,
  type DeliveryQuoteSchema,
  type DeliveryService,
  type RequestDeliveryRequest,
} from "../gen/ordertrail/v1/delivery_service_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Snapshot, Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { Call, ServiceHandlers } from "./call.ts";
import { type CourierDesk, notEnabled } from "./courier-desk.ts";
import type { Occasion } from "./courier-reports.ts";
import type { DeliveryRequests } from "./delivery-request.ts";
import type { LocationIntake } from "./location-intake.ts";
import { recordedOrigin } from "./origin.ts";
import { presentOrders, STATE_OF } from "./present-order.ts";

export type DeliveryServiceDependencies = {
  readonly orders: Transactor<OrderState>;
  readonly reader: LogReader;
  readonly desk: CourierDesk;
  readonly requests: DeliveryRequests;
  readonly locations: Pick<LocationIntake, "find">;
  readonly keys: PersonalKeys;
  readonly now: () => Date;
  /** How long a provider may take to give a quote. */
  readonly patienceMs: number;
};

/** What a provider said when it was asked for a quote. */
type Offer = { readonly provider: DeliveryProvider; readonly quote?: Quote; readonly error?: CourierError };

const SERVICE = "ordertrail.v1.DeliveryService";
const HEAD_POLL_MS = 20;
/** What is left of a call's time for recording and answering after the providers have been asked. */
const RESERVE_MS = 500;

/** DeliveryService: chooses providers, and has the desk deal with them. */
export function createDeliveryService(dependencies: DeliveryServiceDependencies): ServiceHandlers<typeof DeliveryService> {
  const { orders, reader, desk, requests, locations, keys, now, patienceMs } = dependencies;
  const { couriers } = desk;

  /** The order as it stands, if the caller may see it. Another's order is as if it did not exist. */
  async function readOwn(orderId: string, { caller }: Call): Promise<Snapshot<OrderState>> {
    const snapshot = await orders.read(orderId);
    if (!snapshot || !mayAccess(caller, snapshot.state)) throw orderNotFound(orderId);
    return snapshot;
  }

  async function show(snapshot: Snapshot<OrderState>, { caller }: Call) {
    const location = showsLocation(snapshot.state) ? await locations.find(snapshot.state.orderId) : undefined;
    const [order] = await presentOrders([{ ...snapshot, location }], caller, keys);
    return order;
  }

  /** Ends a little before the call does, so that what is known by then can still be told. */
  function inTime({ signal, deadline }: Call): AbortSignal {
    if (!deadline) return signal;
    const leftMs = deadline.getTime() - now().getTime();
    return AbortSignal.any([signal, AbortSignal.timeout(Math.max(1, leftMs - Math.min(RESERVE_MS, leftMs / 4)))]);
  }

  /** These providers, in this order, if all are set up; all that are, if none is named. */
  function enabled(named: readonly DeliveryProvider[]): readonly DeliveryProvider[] {
    const all = [...couriers.keys()];
    for (const provider of named) if (!couriers.has(provider)) throw notEnabled(provider, all);
    return named.length > 0 ? named : all;
  }

  async function offersOf(state: OrderState, providers: readonly DeliveryProvider[], call: Call): Promise<Offer[]> {
    const signal = AbortSignal.any([inTime(call), AbortSignal.timeout(patienceMs)]);
    const request = await requests(state, (state.job?.attempt ?? 0) + 1);
    return await Promise.all(
      providers.map(async (provider): Promise<Offer> => {
        try {
          const quote = await couriers.get(provider)?.quote(request, signal);
          return quote ? { provider, quote } : { provider, error: new CourierError("misconfigured", "not_enabled") };
        } catch (error) {
          if (error instanceof CourierError) return { provider, error };
          if (signal.aborted) return { provider, error: new CourierError("unavailable", "timeout", { cause: error }) };
          throw error;
        }
      }),
    );
  }

  /** Who is asked, in which order: those with a quote as the policy has them, then those who may be down only for now. */
  async function choose(state: OrderState, request: RequestDeliveryRequest, call: Call): Promise<RequestDelivery> {
    const { deliveryProvider, policy, preferredProviders } = request;
    const candidates = enabled(deliveryProvider === 0 ? preferredProviders : [deliveryProvider]);
    const offers = candidates.length === 0 ? [] : await offersOf(state, candidates, call);
    call.signal.throwIfAborted();
    const quoted = sorted(
      offers.filter(({ quote }) => quote),
      policy,
    );
    const down = offers.filter(({ error }) => error?.kind === "unavailable" || error?.kind === "unknown");
    const [first, ...others] = [...quoted, ...down];
    if (!first) throw nobodyDelivers(state.orderId, offers);
    return {
      type: "RequestDelivery",
      deliveryProvider: first.provider,
      quoteId: first.quote?.quoteId ?? "",
      quotedFee: first.quote?.fee,
      alternatives: others.map(({ provider }) => provider),
    };
  }

  /** Whether this request_id has had its effect on this order before. What providers say differs each time, so it is not decided again. */
  async function isRepeated(orderId: string, requestId: string, method: string): Promise<boolean> {
    if (requestId === "") return false;
    const entries = await reader.readStream(orderStream(orderId), 0);
    const known = entries.find(({ entry }) => entry.requestId === requestId);
    if (known && known.entry.method !== method)
      throw new Refusal("REQUEST_ID_REUSED", `request_id was used for ${known.entry.method} before: choose a new one`, {
        method: known.entry.method,
      });
    return known !== undefined;
  }

  return {
    async quoteDelivery({ orderId, deliveryProviders }, call) {
      const { state } = await readOwn(orderId, call);
      const offers = await offersOf(state, enabled(deliveryProviders), call);
      const quoted = sorted(
        offers.filter(({ quote }) => quote),
        DeliveryPolicy.CHEAPEST,
      );
      return { quotes: [...quoted, ...offers.filter(({ quote }) => !quote)].map(presentOffer) };
    },

    async requestDelivery(request, call) {
      const { orderId, requestId, deliveryProvider } = request;
      const { caller } = call;
      const { state } = await readOwn(orderId, call);
      const occasion = occasionOf("RequestDelivery", call);
      const isOther = deliveryProvider !== 0 && state.job?.provider !== deliveryProvider;
      const stands = isOpen(state.job) && !isOther;
      if (!stands && !(await isRepeated(orderId, requestId, occasion.method))) {
        // Whoever may not, or comes too late, is told so before providers are asked.
        decide(state, { type: "RequestDelivery", deliveryProvider, quoteId: "", alternatives: [] }, caller);
        const command = await choose(state, request, call);
        const origin = await recordedOrigin(call, orderId, keys);
        try {
          await orders.transact(
            orderId,
            {
              ...{ method: occasion.method, requestId, correlationId: call.traceId, door: call.door, origin },
              actor: { role: caller.role, subject: caller.subject },
              decide: (current) => {
                if (!current || !mayAccess(caller, current)) throw orderNotFound(orderId);
                return decide(current, command, caller);
              },
            },
            call.signal,
          );
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          // The same may have been asked for at the same time, with other quotes: what stands now is the answer to it, too.
          const { job } = (await readOwn(orderId, call)).state;
          const isStanding = error.reason === "DELIVERY_UNDER_WAY" && (deliveryProvider === 0 || job?.provider === deliveryProvider);
          const mayBeRepeated = error.reason === "REQUEST_ID_REUSED" || error.reason === "DELIVERY_UNDER_WAY";
          if (!isStanding && !(mayBeRepeated && (await isRepeated(orderId, requestId, occasion.method)))) throw error;
        }
      }
      const after = await desk.settle(orderId, occasion, inTime(call));
      const { job } = after.state;
      call.log(
        { order_id: orderId, attempt: job?.attempt, provider: job && DeliveryProvider[job.provider], state: job?.status },
        "a courier was requested",
      );
      return { order: await show(after, call) };
    },

    async getDelivery({ orderId, minPosition, refresh }, call) {
      await untilLogReaches(reader, Number(minPosition), call);
      await readOwn(orderId, call);
      const snapshot = refresh ? await refreshed(orderId, call) : await readOwn(orderId, call);
      return { delivery: presentJob(snapshot) };
    },

    async cancelDelivery({ orderId, requestId }, call) {
      const { caller } = call;
      const before = await readOwn(orderId, call);
      if (!before.state.job) throw notRequested(orderId);
      const occasion = occasionOf("CancelDelivery", call);
      if (await isRepeated(orderId, requestId, occasion.method)) return { order: await show(before, call) };
      const actor = { role: caller.role, subject: caller.subject };
      const origin = await recordedOrigin(call, orderId, keys);
      const after = await desk.callOff(orderId, actor, { ...occasion, requestId, origin }, inTime(call));
      return { order: await show(after, call) };
    },
  };

  async function refreshed(orderId: string, call: Call): Promise<Snapshot<OrderState>> {
    try {
      return await desk.refresh(orderId, occasionOf("GetDelivery", call), inTime(call));
    } catch (error) {
      // What the log knows is better than nothing.
      if (!(error instanceof CourierError)) throw error;
      call.log({ order_id: orderId, code: error.code }, "a provider does not tell how a delivery stands");
      return await readOwn(orderId, call);
    }
  }
}

function occasionOf(method: string, { door, traceId }: Call): Occasion {
  return { method: `${SERVICE}/${method}`, door, correlationId: traceId };
}

/** The best first; as they are for PREFERENCE. Fees in different currencies are not compared: they stay as they are. */
function sorted(offers: readonly Offer[], policy: DeliveryPolicy): Offer[] {
  if (policy === DeliveryPolicy.PREFERENCE) return [...offers];
  if (policy === DeliveryPolicy.FASTEST) return offers.toSorted((a, b) => arrival(a) - arrival(b));
  return offers.toSorted((a, b) => {
    const [one, other] = [a.quote?.fee, b.quote?.fee];
    return one && other && one.currency === other.currency ? Number(one.amountMinor - other.amountMinor) : 0;
  });
}

function arrival({ quote }: Offer): number {
  return quote?.dropoffAt?.getTime() ?? Number.MAX_SAFE_INTEGER;
}

function presentOffer({ provider, quote, error }: Offer): MessageInitShape<typeof DeliveryQuoteSchema> {
  if (!quote) {
    const retryable = error?.kind === "unavailable" || error?.kind === "unknown";
    return { deliveryProvider: provider, reason: error?.code ?? "unknown", retryable };
  }
  const { quoteId, fee, pickupAt, dropoffAt, expiresAt } = quote;
  return {
    ...{ deliveryProvider: provider, quoteId, fee, expiresAt: timestampFromDate(expiresAt) },
    ...(pickupAt && { pickupAt: timestampFromDate(pickupAt) }),
    ...(dropoffAt && { dropoffAt: timestampFromDate(dropoffAt) }),
  };
}

function presentJob({ state, version, position }: Snapshot<OrderState>): MessageInitShape<typeof CourierRequestSchema> {
  const { orderId, job, eta } = state;
  if (!job) throw notRequested(orderId);
  const { provider, attempt, status, quoteId, quotedFee, alternatives, requestedAt, delivery, reason } = job;
  return {
    ...{ orderId, deliveryProvider: provider, attempt, state: STATE_OF[status], quoteId, reason, version, position: BigInt(position) },
    ...{ alternatives: [...alternatives], requestedAt: timestampFromDate(requestedAt) },
    ...(quotedFee && { quotedFee }),
    ...(delivery && { providerDeliveryId: delivery.providerDeliveryId, trackingUrl: delivery.trackingUrl }),
    ...(delivery?.fee && { fee: delivery.fee }),
    ...(eta && { eta: timestampFromDate(eta) }),
  };
}

/** Waits for a position, but not longer than the process lives: what others write will not come here after that. */
async function untilLogReaches(reader: LogReader, position: number, { signal, stopping }: Call): Promise<void> {
  if (position === 0) return;
  const ended = AbortSignal.any([signal, stopping]);
  while ((await reader.head()) < position) {
    await pause(HEAD_POLL_MS, undefined, { signal: ended }).catch(() => ended.throwIfAborted());
  }
}

function notRequested(orderId: string): Refusal {
  return new Refusal("DELIVERY_NOT_REQUESTED", `no courier has been requested for order ${orderId}: use RequestDelivery`, {
    order_id: orderId,
  });
}

function nobodyDelivers(orderId: string, offers: readonly Offer[]): Refusal {
  const reasons = offers.map(({ provider, error }) => [String(DeliveryProvider[provider]), error?.code ?? "unknown"] as const);
  const told = reasons.map(([name, code]) => `${name}: ${code}`).join(", ") || "no provider is set up here";
  return new Refusal("NO_PROVIDER_AVAILABLE", `no provider delivers order ${orderId} at present (${told})`, {
    order_id: orderId,
    ...Object.fromEntries(reasons.map(([name, code]) => [`${name.toLowerCase()}_code`, code])),
  });
}
