import { create } from "@bufbuild/protobuf";
import type { Logger } from "pino";
import type { CourierPoint, CourierStatus, Delivery } from "../couriers/courier.ts";
import type { Actor } from "../domain/caller.ts";
import { decide, type OrderCommand, type OrderState } from "../domain/order.ts";
import { isBroughtByAnother, isDriverOf } from "../domain/order-delivery.ts";
import { Refusal } from "../domain/refusal.ts";
import type { Origin } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { DeliveryJobSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { DeliveryProvider, type Door, OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Snapshot, Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { CourierJobs } from "../projections/courier-jobs.ts";
import { sealDriver } from "./seal-driver.ts";

/** By what way something became known of a courier, for the log. */
export type Occasion = {
  readonly method: string;
  readonly door: Door;
  readonly correlationId: string;
  /** The caller's identifier of a command, and from where it came; only of what a caller asked for, not of what providers tell. */
  readonly requestId?: string;
  readonly origin?: Origin;
};

/** Takes a courier's place, on its way to those who watch, for an order as it stands. */
export type TakePoint = (point: CourierPoint, order: Snapshot<OrderState>) => Promise<unknown>;

/** What a provider says of one of an order's requests. */
export type Told = {
  readonly orderId: string;
  readonly provider: DeliveryProvider;
  readonly attempt: number;
  readonly delivery: Delivery;
  /** True when the provider was asked for it just now: then it is how things stand, and no late message. */
  readonly asked: boolean;
};

/** What of an order's requests providers tell, turned into commands that the domain judges. */
export type CourierReports = {
  /**
   * Records what a provider tells, whatever of it is new. Of a request that is not the order's current one nothing is.
   * What the table of moves refuses is logged and left. Answers the order after it.
   */
  apply(told: Told, occasion: Occasion): Promise<Snapshot<OrderState> | undefined>;
  /** Carries out a command about a request, if it is the order's current one with that provider; with `unanswered`, only while it has no answer. */
  record(
    about: Pick<Told, "orderId" | "provider" | "attempt"> & { readonly unanswered?: true },
    command: OrderCommand,
    actor: Actor,
    occasion: Occasion,
  ): Promise<Snapshot<OrderState>>;
};

/** The order's status that a courier's implies; none where it tells of the courier only. */
const MOVED: Readonly<Record<CourierStatus, OrderStatus | undefined>> = {
  REQUESTED: undefined,
  ASSIGNED: undefined,
  AT_STORE: undefined,
  PICKED_UP: OrderStatus.DRIVER_PICKUP_COMPLETE,
  ON_THE_WAY: OrderStatus.IN_TRANSIT,
  ARRIVED: OrderStatus.IN_TRANSIT,
  DELIVERED: OrderStatus.DELIVERED,
  RETURNING: OrderStatus.RETURNING,
  RETURNED: OrderStatus.RETURNING,
  // Before the goods are picked up it ends the job, and after that it means that they come back.
  CANCELLED: OrderStatus.RETURNING,
};

/** From when on a status means that a courier is named. */
const NAMING: readonly CourierStatus[] = ["ASSIGNED", "AT_STORE", "PICKED_UP", "ON_THE_WAY", "ARRIVED", "DELIVERED"];
const WITH_COURIER: readonly OrderStatus[] = [OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT];
const ENDED: readonly OrderStatus[] = [OrderStatus.DELIVERED, OrderStatus.CANCELLED];

/** A provider as the log names it. */
export function partnerOf(provider: DeliveryProvider): Actor {
  return { role: Role.PARTNER, subject: String(DeliveryProvider[provider]).toLowerCase() };
}

/** What providers tell, recorded in the log. */
export function createCourierReports({
  orders,
  jobs,
  keys,
  takePoint,
  now,
  logger,
}: {
  readonly orders: Transactor<OrderState>;
  readonly jobs: Pick<CourierJobs, "isCallOffNoted">;
  readonly keys: PersonalKeys;
  readonly takePoint: TakePoint;
  readonly now: () => Date;
  readonly logger: Logger;
}): CourierReports {
  const record: CourierReports["record"] = async (
    { orderId, provider, attempt, unanswered },
    command,
    actor,
    { method, door, correlationId },
  ) =>
    await orders.transact(orderId, {
      ...{ method, door, correlationId, actor, requestId: "" },
      decide: (state) => {
        const isMeant = state && isCurrent(state, provider, attempt) && !(unanswered && state.job?.status !== "REQUESTED");
        return isMeant ? decide(state, command, actor) : [];
      },
    });

  /** The commands, one after the other, each made of the state before it. */
  async function* commandsOf({ orderId, attempt, delivery, asked }: Told, state: () => OrderState): AsyncGenerator<OrderCommand> {
    const { status, courier, providerDeliveryId, fee, trackingUrl } = delivery;
    const eta = delivery.dropoffAt;
    if (status !== "CANCELLED" || state().job?.status === "REQUESTED")
      yield { type: "AcceptDelivery", attempt, providerDeliveryId, fee, trackingUrl, eta };
    if (status === undefined) return;
    if (courier && NAMING.includes(status) && !state().job?.overruled) {
      const { driver, eta: known, job } = state();
      yield {
        type: "AssignDriver",
        driver: await sealDriver(keys, orderId, { ...courier, licensePlate: "" }),
        deliveryProvider: DeliveryProvider.UNSPECIFIED,
        delivery: job?.delivery ?? create(DeliveryJobSchema, { providerDeliveryId, trackingUrl, attempt, ...(fee && { fee }) }),
        // A new estimate alone is no event: there would be one every few seconds.
        eta: driver?.driverId === courier.driverId ? known : (eta ?? known),
      };
    }
    const isUnassigned = asked && status === "REQUESTED" && state().delivery?.attempt === attempt;
    if (isUnassigned && state().status === OrderStatus.DRIVER_ASSIGNED)
      yield { type: "UpdateStatus", status: OrderStatus.READY_FOR_PICKUP, identified: true };
    const to = MOVED[status];
    // Where somebody else brings the goods, what this courier does is about the job, and not about the order.
    const isOthers = isBroughtByAnother(state(), attempt);
    if (status === "CANCELLED" && (isOthers || !WITH_COURIER.includes(state().status))) {
      const { endReason, isEndedByUs } = delivery;
      if (isEndedByUs || (await jobs.isCallOffNoted(orderId, attempt))) yield { type: "CallOffDelivery", attempt };
      else yield { type: "DeclineDelivery", attempt, reason: endReason || "cancelled", failOver: !isOthers };
    } else if (isOthers) {
      logger.info(
        { order_id: orderId, attempt, provider_status: delivery.providerStatus },
        "a courier who does not bring the order is told of",
      );
    } else if (to === OrderStatus.DELIVERED) {
      const at = now();
      yield { type: "MarkDelivered", deliveredAt: eta && eta < at ? eta : at };
    } else if (to !== undefined) {
      yield { type: "UpdateStatus", status: to };
    }
  }

  async function apply(told: Told, occasion: Occasion): Promise<Snapshot<OrderState> | undefined> {
    const { orderId, provider, attempt, delivery } = told;
    const about = { order_id: orderId, provider: DeliveryProvider[provider], attempt, provider_status: delivery.providerStatus };
    let snapshot = await orders.read(orderId);
    if (!snapshot || !isCurrent(snapshot.state, provider, attempt)) {
      logger.info(about, "a provider tells of a request that is not the order's current one; it is left");
      return snapshot;
    }
    const { delivery: known } = snapshot.state.job ?? {};
    if (known && known.providerDeliveryId !== delivery.providerDeliveryId) {
      logger.warn(about, "a provider tells of another delivery than the one that it accepted for this request; it is left");
      return snapshot;
    }
    if (delivery.status === undefined) logger.info(about, "a provider tells of a status that is not known here");
    const before = snapshot.version;
    const commands = commandsOf(told, () => (snapshot as Snapshot<OrderState>).state);
    for await (const command of commands) {
      try {
        snapshot = await record(told, command, partnerOf(provider), occasion);
      } catch (error) {
        if (!(error instanceof Refusal) || (error.reason !== "INVALID_STATUS_TRANSITION" && error.reason !== "PERMISSION_DENIED"))
          throw error;
        logger.info({ ...about, command: command.type, reason: error.reason }, "a provider's report does not fit the order; it is left");
      }
    }
    if (snapshot.version !== before)
      logger.info(
        { ...about, position: snapshot.position, version: snapshot.version, to: OrderStatus[snapshot.state.status] },
        "a provider's report was recorded",
      );
    const { point } = delivery;
    if (point && isDriverOf(snapshot.state, attempt) && !ENDED.includes(snapshot.state.status)) await takePoint(point, snapshot);
    return snapshot;
  }

  return { apply, record };
}

/** Whether a request is the order's current one, and has not been given up. */
export function isCurrent({ job }: OrderState, provider: DeliveryProvider, attempt: number): boolean {
  return job?.provider === provider && job.attempt === attempt && job.status !== "DECLINED" && job.status !== "CALLED_OFF";
}
