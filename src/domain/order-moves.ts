import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderCommand } from "./order.ts";

/** The kinds of events, as the generated code names them, such as "storeNotified". */
export type EventCase = NonNullable<Event["kind"]["case"]>;

/** One thing that can be done with an order. */
export type Move = {
  /** What is done; reads on after "may not". */
  readonly name: string;
  /** The commands that do it, the usual one first. */
  readonly commands: readonly OrderCommand["type"][];
  /** Where the order may stand; nowhere yet, if empty. */
  readonly from: readonly OrderStatus[];
  /** Where it stands then; where it stood, if absent. */
  readonly to?: OrderStatus;
  /** Who may do it. */
  readonly roles: readonly Role[];
  /** What is recorded; an event always leads to the same status. */
  readonly event: EventCase;
};

/** Those who deliver. They tell what they have done already, so they are not held to the order of steps as others are. */
export const COURIERS: readonly Role[] = [Role.DRIVER, Role.PARTNER];

/** A courier reports a status that the order has passed. */
export const LATE_REPORT: Move = {
  name: "report what is past",
  commands: ["UpdateStatus", "MarkDelivered"],
  from: [OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT, OrderStatus.RETURNING, OrderStatus.DELIVERED, OrderStatus.CANCELLED],
  roles: COURIERS,
  event: "courierReportRecorded",
};

/** A provider names a driver when the goods have left with another, or when the order is called off. */
export const LATE_ASSIGNMENT: Move = {
  name: "report a driver too late",
  commands: ["AssignDriver"],
  from: [OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT, OrderStatus.DELIVERED, OrderStatus.CANCELLED],
  roles: [Role.PARTNER],
  event: "courierReportRecorded",
};

/** A provider names the driver with whom the goods have left; only while none is known. */
export const LATE_NAMING: Move = {
  name: "name the driver late",
  commands: ["AssignDriver"],
  from: [OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT, OrderStatus.DELIVERED],
  roles: [Role.PARTNER],
  event: "driverBooked",
};

const STORE_SIDE: readonly Role[] = [Role.STORE, Role.SERVICE, Role.OPERATOR];
const COURIER_SIDE: readonly Role[] = [...COURIERS, Role.SERVICE, Role.OPERATOR];
/** Where an order waits for somebody, for a limited time. */
const WAITING: readonly OrderStatus[] = [
  OrderStatus.STORE_NOTIFIED,
  OrderStatus.SUBSTITUTIONS_NEEDED,
  OrderStatus.READY_FOR_PICKUP,
  OrderStatus.DRIVER_ASSIGNED,
];
const DISPATCHERS: readonly Role[] = [Role.PARTNER, Role.STORE, Role.SERVICE, Role.OPERATOR];

const BEFORE_PICKUP: readonly OrderStatus[] = [
  OrderStatus.SUBMITTED,
  OrderStatus.STORE_NOTIFIED,
  OrderStatus.STORE_ACKNOWLEDGED,
  OrderStatus.PICKING_IN_PROGRESS,
  OrderStatus.SUBSTITUTIONS_NEEDED,
  OrderStatus.READY_FOR_PICKUP,
  OrderStatus.DRIVER_ASSIGNED,
];

/** Everywhere that an order can stand: what a provider has done is a fact, however far the order has come. */
const ANYWHERE: readonly OrderStatus[] = [
  ...BEFORE_PICKUP,
  OrderStatus.DRIVER_PICKUP_COMPLETE,
  OrderStatus.IN_TRANSIT,
  OrderStatus.DELIVERED,
  OrderStatus.CANCELLED,
  OrderStatus.RETURNING,
];

/** Everything that can be done with an order. The guard, the tests and docs/order-states.md read this table and nothing else. */
export const MOVES: readonly Move[] = [
  {
    name: "submit an order",
    commands: ["InitTracking"],
    from: [],
    to: OrderStatus.SUBMITTED,
    roles: [Role.SERVICE, Role.OPERATOR],
    event: "orderSubmitted",
  },
  {
    name: "notify the store",
    commands: ["UpdateStatus"],
    from: [OrderStatus.SUBMITTED],
    to: OrderStatus.STORE_NOTIFIED,
    roles: [...STORE_SIDE, Role.SYSTEM],
    event: "storeNotified",
  },
  {
    name: "acknowledge the order",
    commands: ["AcknowledgeOrder", "UpdateStatus"],
    from: [OrderStatus.STORE_NOTIFIED],
    to: OrderStatus.STORE_ACKNOWLEDGED,
    roles: STORE_SIDE,
    event: "storeAcknowledged",
  },
  {
    name: "decline the order",
    commands: ["AcknowledgeOrder"],
    from: [OrderStatus.STORE_NOTIFIED],
    to: OrderStatus.CANCELLED,
    roles: STORE_SIDE,
    event: "orderCancelled",
  },
  {
    name: "start picking",
    commands: ["UpdateStatus"],
    from: [OrderStatus.STORE_ACKNOWLEDGED],
    to: OrderStatus.PICKING_IN_PROGRESS,
    roles: STORE_SIDE,
    event: "pickingStarted",
  },
  {
    name: "propose substitutions",
    commands: ["ProposeSubstitutions"],
    from: [OrderStatus.PICKING_IN_PROGRESS, OrderStatus.SUBSTITUTIONS_NEEDED],
    to: OrderStatus.SUBSTITUTIONS_NEEDED,
    roles: STORE_SIDE,
    event: "substitutionsProposed",
  },
  {
    name: "answer substitutions",
    commands: ["ResolveSubstitutions"],
    from: [OrderStatus.SUBSTITUTIONS_NEEDED],
    roles: [Role.CUSTOMER, Role.SERVICE, Role.OPERATOR],
    event: "substitutionsResolved",
  },
  {
    name: "answer substitutions",
    commands: ["ResolveSubstitutions"],
    from: [OrderStatus.SUBSTITUTIONS_NEEDED],
    to: OrderStatus.PICKING_IN_PROGRESS,
    roles: [Role.CUSTOMER, Role.SERVICE, Role.OPERATOR],
    event: "pickingResumed",
  },
  {
    name: "go on picking",
    commands: ["UpdateStatus"],
    from: [OrderStatus.SUBSTITUTIONS_NEEDED],
    to: OrderStatus.PICKING_IN_PROGRESS,
    roles: STORE_SIDE,
    event: "pickingResumed",
  },
  {
    name: "ready the order",
    commands: ["UpdateStatus"],
    from: [OrderStatus.PICKING_IN_PROGRESS, OrderStatus.SUBSTITUTIONS_NEEDED],
    to: OrderStatus.READY_FOR_PICKUP,
    roles: STORE_SIDE,
    event: "orderReadied",
  },
  {
    name: "book a driver",
    commands: ["AssignDriver"],
    from: [
      OrderStatus.SUBMITTED,
      OrderStatus.STORE_NOTIFIED,
      OrderStatus.STORE_ACKNOWLEDGED,
      OrderStatus.PICKING_IN_PROGRESS,
      OrderStatus.SUBSTITUTIONS_NEEDED,
    ],
    roles: DISPATCHERS,
    event: "driverBooked",
  },
  {
    name: "assign a driver",
    commands: ["AssignDriver"],
    from: [OrderStatus.READY_FOR_PICKUP, OrderStatus.DRIVER_ASSIGNED, OrderStatus.RETURNING],
    to: OrderStatus.DRIVER_ASSIGNED,
    roles: DISPATCHERS,
    event: "driverAssigned",
  },
  {
    name: "unassign the driver",
    commands: ["UpdateStatus"],
    from: [OrderStatus.DRIVER_ASSIGNED],
    to: OrderStatus.READY_FOR_PICKUP,
    roles: COURIER_SIDE,
    event: "driverUnassigned",
  },
  {
    name: "pick up the goods",
    commands: ["UpdateStatus"],
    from: [OrderStatus.DRIVER_ASSIGNED],
    to: OrderStatus.DRIVER_PICKUP_COMPLETE,
    roles: COURIER_SIDE,
    event: "driverPickupCompleted",
  },
  {
    name: "set out for the customer",
    commands: ["UpdateStatus"],
    from: [OrderStatus.DRIVER_PICKUP_COMPLETE],
    to: OrderStatus.IN_TRANSIT,
    roles: COURIER_SIDE,
    event: "transitStarted",
  },
  {
    name: "hand over the goods",
    commands: ["MarkDelivered", "UpdateStatus"],
    from: [OrderStatus.IN_TRANSIT],
    to: OrderStatus.DELIVERED,
    roles: COURIER_SIDE,
    event: "orderDelivered",
  },
  {
    name: "bring the goods back",
    commands: ["UpdateStatus"],
    from: [OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT],
    to: OrderStatus.RETURNING,
    roles: COURIER_SIDE,
    event: "deliveryFailed",
  },
  LATE_NAMING,
  LATE_ASSIGNMENT,
  LATE_REPORT,
  {
    name: "request a courier",
    commands: ["RequestDelivery"],
    from: [...BEFORE_PICKUP, OrderStatus.RETURNING],
    roles: [Role.STORE, Role.SERVICE, Role.OPERATOR],
    event: "deliveryRequested",
  },
  {
    name: "take the delivery on",
    commands: ["AcceptDelivery"],
    from: ANYWHERE,
    roles: [Role.PARTNER],
    event: "deliveryAccepted",
  },
  {
    name: "decline the delivery",
    commands: ["DeclineDelivery"],
    from: ANYWHERE,
    roles: [Role.PARTNER, Role.SYSTEM],
    event: "deliveryDeclined",
  },
  {
    name: "call the courier off",
    commands: ["CallOffDelivery"],
    from: ANYWHERE,
    roles: [Role.STORE, Role.SERVICE, Role.PARTNER, Role.OPERATOR, Role.SYSTEM],
    event: "deliveryCalledOff",
  },
  {
    name: "cancel the order",
    commands: ["CancelOrder", "UpdateStatus"],
    from: [
      OrderStatus.SUBMITTED,
      OrderStatus.STORE_NOTIFIED,
      OrderStatus.STORE_ACKNOWLEDGED,
      OrderStatus.PICKING_IN_PROGRESS,
      OrderStatus.SUBSTITUTIONS_NEEDED,
      OrderStatus.READY_FOR_PICKUP,
      OrderStatus.DRIVER_ASSIGNED,
    ],
    to: OrderStatus.CANCELLED,
    roles: [Role.CUSTOMER, Role.STORE, Role.SERVICE, Role.OPERATOR, Role.SYSTEM],
    event: "orderCancelled",
  },
  {
    name: "cancel an order whose goods come back",
    commands: ["CancelOrder", "UpdateStatus"],
    from: [OrderStatus.RETURNING],
    to: OrderStatus.CANCELLED,
    roles: [Role.STORE, Role.SERVICE, Role.OPERATOR, Role.SYSTEM],
    event: "orderCancelled",
  },
  { name: "remind of what is due", commands: ["CheckDeadline"], from: WAITING, roles: [Role.SYSTEM], event: "deadlineReminded" },
  { name: "tell of what was not done", commands: ["CheckDeadline"], from: WAITING, roles: [Role.SYSTEM], event: "deadlineEscalated" },
  {
    name: "cancel an order that its store does not acknowledge",
    commands: ["CheckDeadline"],
    from: [OrderStatus.STORE_NOTIFIED],
    to: OrderStatus.CANCELLED,
    roles: [Role.SYSTEM],
    event: "orderCancelled",
  },
  {
    name: "answer substitutions for who did not",
    commands: ["CheckDeadline"],
    from: [OrderStatus.SUBSTITUTIONS_NEEDED],
    roles: [Role.SYSTEM],
    event: "substitutionsResolved",
  },
  {
    name: "answer substitutions for who did not",
    commands: ["CheckDeadline"],
    from: [OrderStatus.SUBSTITUTIONS_NEEDED],
    to: OrderStatus.PICKING_IN_PROGRESS,
    roles: [Role.SYSTEM],
    event: "pickingResumed",
  },
];

/** The statuses in the order in which an order has them. CANCELLED has no place in it. */
export const COURSE: readonly OrderStatus[] = [
  OrderStatus.SUBMITTED,
  OrderStatus.STORE_NOTIFIED,
  OrderStatus.STORE_ACKNOWLEDGED,
  OrderStatus.PICKING_IN_PROGRESS,
  OrderStatus.SUBSTITUTIONS_NEEDED,
  OrderStatus.READY_FOR_PICKUP,
  OrderStatus.DRIVER_ASSIGNED,
  OrderStatus.DRIVER_PICKUP_COMPLETE,
  OrderStatus.IN_TRANSIT,
  OrderStatus.RETURNING,
  OrderStatus.DELIVERED,
];

/** Statuses of the course that an order can do without, so that nothing later implies them. */
export const DETOURS: readonly OrderStatus[] = [OrderStatus.SUBSTITUTIONS_NEEDED, OrderStatus.RETURNING];

const STATUS_AFTER: ReadonlyMap<string, OrderStatus> = new Map(MOVES.flatMap(({ event, to }) => (to === undefined ? [] : [[event, to]])));

/** The status that an event leads to; undefined when it moves nothing or is not known here. */
export function statusAfter(event: Event): OrderStatus | undefined {
  return event.kind.case && STATUS_AFTER.get(event.kind.case);
}

/** True when nothing leads on from a status. */
export function isFinal(status: OrderStatus): boolean {
  return !MOVES.some((move) => move.to !== undefined && move.from.includes(status));
}
