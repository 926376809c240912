import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { seesDriver, seesPersonalData } from "../access/permissions.ts";
import type { Caller } from "../domain/caller.ts";
import type { DriverPoint, Place } from "../domain/driver-point.ts";
import type { OrderState, StatusStep, SubstitutionState } from "../domain/order.ts";
import type { Waiting } from "../domain/order-deadlines.ts";
import type { JobStatus } from "../domain/order-delivery.ts";
import { showsLocation } from "../domain/order-location.ts";
import { OrderStatus, Role, type Sealed } from "../gen/ordertrail/events/v1/values_pb.js";
import {
  DeliveryState,
  type DriverDetails,
  DriverDetailsSchema,
  type OrderTracking,
  OrderTrackingSchema,
  type ProofOfDelivery,
  ProofOfDeliverySchema,
  type Recipient,
  RecipientSchema,
  type StatusChange,
  StatusChangeSchema,
  type Waiting as WaitingMessage,
  WaitingSchema,
} from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { Snapshot } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { SealedPoint } from "../projections/driver-locations.ts";
import { presentToLink } from "./link-view.ts";
import { placeOf } from "./place-bytes.ts";
import type { LastPoint } from "./sealed-locations.ts";

/** The contexts that bind what is sealed to its place: moved elsewhere, it does not open. */
export const sealedContext = {
  recipient: (orderId: string) => `order-${orderId}/recipient`,
  note: (orderId: string) => `order-${orderId}/note`,
  proof: (orderId: string) => `order-${orderId}/proof`,
  driver: (orderId: string) => `order-${orderId}/driver`,
  origin: (orderId: string) => `order-${orderId}/origin`,
  location: (orderId: string) => `order-${orderId}/location`,
} as const;

/** An order to show, with where its driver was last seen if that is known. */
export type Presentable = Snapshot<OrderState> & { readonly location?: LastPoint | SealedPoint | undefined };

/** Orders as the API shows them to this caller: personal data only to those who may see it, and while its key exists. */
export async function presentOrders(orders: readonly Presentable[], caller: Caller, keys: PersonalKeys): Promise<OrderTracking[]> {
  const wanted: { readonly sealed: Sealed; readonly context: string }[] = [];
  const finished = orders.map((order) => {
    const { state } = order;
    const sees = seesPersonalData(caller, state);
    const opens = (may: boolean, sealed: Sealed | undefined, context: string): number =>
      may && sealed ? wanted.push({ sealed, context }) - 1 : -1;
    const recipient = opens(sees.recipient, state.recipient, sealedContext.recipient(state.orderId));
    const proof = opens(sees.recipient, state.proof?.details, sealedContext.proof(state.orderId));
    const driver = opens(sees.driver, state.driver?.personal, sealedContext.driver(state.orderId));
    const { location } = order;
    const sealedPlace = location && "place" in location ? location.place : undefined;
    const isDriverShown = seesDriver(caller, state);
    const place = opens(isDriverShown && showsLocation(state), sealedPlace, sealedContext.location(state.orderId));
    const notes = state.history.map((step) => opens(sees.recipient, step.note, sealedContext.note(state.orderId)));
    return (opened: readonly (Uint8Array | undefined)[]) => {
      const bytes = (index: number) => (index < 0 ? undefined : opened[index]);
      return present(order, {
        isDriverShown,
        recipient: decode(bytes(recipient), (found) => fromBinary(RecipientSchema, found)),
        proof: decode(bytes(proof), (found) => fromBinary(ProofOfDeliverySchema, found)),
        driver: decode(bytes(driver), (found) => fromBinary(DriverDetailsSchema, found)),
        place: decode(bytes(place), placeOf),
        notes: notes.map((index) => decode(bytes(index), (found) => Buffer.from(found).toString()) ?? ""),
      });
    };
  });
  const opened = wanted.length === 0 ? [] : await keys.openMany(wanted);
  const presented = finished.map((finish) => finish(opened));
  return caller.role === Role.LINK ? presented.map(presentToLink) : presented;
}

/** The API's names of how a request for a courier stands. */
export const STATE_OF: Readonly<Record<JobStatus, DeliveryState>> = {
  REQUESTED: DeliveryState.REQUESTED,
  ACCEPTED: DeliveryState.ACCEPTED,
  DECLINED: DeliveryState.DECLINED,
  CALLED_OFF: DeliveryState.CALLED_OFF,
  ENDED: DeliveryState.ENDED,
};

type Opened = {
  /** Whether the caller is shown which driver it is, and where. */
  readonly isDriverShown: boolean;
  readonly recipient: Recipient | undefined;
  readonly proof: ProofOfDelivery | undefined;
  readonly driver: DriverDetails | undefined;
  readonly place: Place | undefined;
  readonly notes: readonly string[];
};

function present({ state, version, position, location: known }: Presentable, opened: Opened): OrderTracking {
  const isOthers = known && "driverId" in known && known.driverId !== state.driver?.driverId;
  const location = opened.isDriverShown && showsLocation(state) && !isOthers ? placed(known, opened.place) : undefined;
  const eta = location?.eta ?? state.eta;
  const shown: MessageInitShape<typeof OrderTrackingSchema> = {
    orderId: state.orderId,
    storeId: state.storeId,
    customerId: state.customerId,
    currentStatus: state.status,
    deliveryProvider: state.deliveryProvider,
    statusHistory: state.history.map((step, index) => presentStep(step, opened.notes[index] ?? "")),
    substitutions: state.substitutions.map(presentSubstitution),
    items: [...state.items],
    version,
    position: BigInt(position),
    createdAt: timestampOf(state.createdAt),
    updatedAt: timestampOf(state.updatedAt),
    ...(state.metadata && { metadata: state.metadata }),
    ...(opened.recipient && { recipient: opened.recipient }),
    ...(state.readyAt && { readyAt: timestampOf(state.readyAt) }),
    ...(eta && { eta: timestampOf(eta) }),
    milestones: state.milestones.map(({ milestone, at }) => ({ milestone, reachedAt: timestampOf(at) })),
    substitutionPolicy: state.substitutionPolicy,
    ...(state.waiting && { waitingFor: presentWaiting(state.waiting) }),
  };
  if (state.driver && opened.isDriverShown) {
    const { driverId, vehicleType } = state.driver;
    shown.driverDetails = Object.assign(opened.driver ?? create(DriverDetailsSchema), { driverId, vehicleType });
  }
  if (location) shown.driverLocation = presentLocation(location);
  const delivery = state.delivery ?? state.job?.delivery;
  if (delivery || state.job) {
    const { providerDeliveryId = "", fee, trackingUrl = "" } = delivery ?? {};
    const job = state.job && { state: STATE_OF[state.job.status], attempt: state.job.attempt };
    shown.delivery = { providerDeliveryId, trackingUrl, ...(fee && { fee }), ...job };
  }
  if (state.cancellation) {
    const { reason, actor, at, previousStatus } = state.cancellation;
    // A person's own words are sealed, as the note of the step.
    const words = opened.notes[state.history.findLastIndex((step) => step.status === OrderStatus.CANCELLED)];
    shown.cancellation = { reason: reason || (words ?? ""), actor, cancelledAt: timestampOf(at), previousStatus };
  }
  if (state.proof) {
    const deliveredAt = timestampOf(state.proof.deliveredAt);
    shown.proofOfDelivery = Object.assign(opened.proof ?? create(ProofOfDeliverySchema), { deliveredAt });
  }
  return create(OrderTrackingSchema, shown);
}

/** Where the driver was; undefined when that was sealed by a key that has been destroyed. */
function placed(
  location: Presentable["location"],
  opened: Place | undefined,
): (DriverPoint & { readonly eta?: Date | undefined }) | undefined {
  return location && "place" in location ? opened && { ...location, ...opened } : location;
}

/** Times as they are shown: those of a state are shared with later ones, and are made once. */
const shownTimes = new WeakMap<Date, Timestamp>();

function timestampOf(time: Date): Timestamp {
  let shown = shownTimes.get(time);
  if (!shown) {
    shown = timestampFromDate(time);
    shownTimes.set(time, shown);
  }
  return shown;
}

/** What an order waits for, as it is shown, likewise. */
const shownWaits = new WeakMap<Waiting, WaitingMessage>();

/** Steps as they are shown, without a note. A step never changes and later states of the order share it, so it is made once. */
const shownSteps = new WeakMap<StatusStep, StatusChange>();

function presentStep(step: StatusStep, note: string): StatusChange {
  const known = note === "" ? shownSteps.get(step) : undefined;
  if (known) return known;
  const { status, previousStatus, at, actor, inferred } = step;
  const shown = create(StatusChangeSchema, { status, previousStatus, timestamp: timestampOf(at), actor, note, inferred });
  if (note === "") shownSteps.set(step, shown);
  return shown;
}

function presentSubstitution(substitution: SubstitutionState) {
  const { substitutionId, originalItem, replacementItem, reason, status, proposedAt, resolvedAt, resolvedBy } = substitution;
  return {
    substitutionId,
    reason,
    status,
    proposedAt: timestampOf(proposedAt),
    ...(originalItem && { originalItem }),
    ...(replacementItem && { replacementItem }),
    ...(resolvedAt && { resolvedAt: timestampOf(resolvedAt) }),
    ...(resolvedBy && { resolvedBy }),
  };
}

function presentWaiting(waiting: Waiting): WaitingMessage {
  const known = shownWaits.get(waiting);
  if (known) return known;
  const { deadline, since, dueAt, escalatesAt, remindedAt, escalatedAt } = waiting;
  const shown = create(WaitingSchema, {
    deadline,
    since: timestampOf(since),
    dueAt: timestampOf(dueAt),
    escalatesAt: timestampOf(escalatesAt),
    ...(remindedAt && { remindedAt: timestampOf(remindedAt) }),
    ...(escalatedAt && { escalatedAt: timestampOf(escalatedAt) }),
  });
  shownWaits.set(waiting, shown);
  return shown;
}

/** A point as the API shows it. */
export function presentLocation({ latitude, longitude, headingDeg, speedMps, accuracyM, recordedAt }: DriverPoint) {
  return {
    latitude,
    longitude,
    // Each point has a time of its own: to remember it would only be work for the garbage collector.
    recordedAt: timestampFromDate(recordedAt),
    ...(headingDeg !== undefined && { headingDeg }),
    ...(speedMps !== undefined && { speedMps }),
    ...(accuracyM !== undefined && { accuracyM }),
  };
}

function decode<Value>(bytes: Uint8Array | undefined, read: (bytes: Uint8Array) => Value): Value | undefined {
  return bytes === undefined ? undefined : read(bytes);
}
