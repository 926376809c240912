import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { checkFilters, mayAccess, scopeOf, seesPersonalData } from "../access/permissions.ts";
import { isPersonal } from "../domain/caller.ts";
import { decide, evolve, hasBeen, type OrderCommand, type OrderState, orderStream } from "../domain/order.ts";
import { showsLocation, takesLocation } from "../domain/order-location.ts";
import { orderNotFound } from "../domain/order-refusals.ts";
import { Refusal } from "../domain/refusal.ts";
import { type Origin, OriginSchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { DeliveryJobSchema, type OrderDeadlines, ProposedSubstitutionSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { OrderStatus, Role, type Sealed } from "../gen/ordertrail/events/v1/values_pb.js";
import { LocationDropReason, type OrderTracking, ProofOfDeliverySchema, RecipientSchema } from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { HistoryEventSchema, OrderTrackingService, SubstitutionResolution } from "../gen/ordertrail/v1/order_tracking_service_pb.js";
import { eventType } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import type { Outcome, Snapshot, Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { OrderTrackings } from "../projections/order-tracking.ts";
import type { Projector } from "../projections/projector.ts";
import type { Call, ServiceHandlers } from "./call.ts";
import { presentEventToLink } from "./link-view.ts";
import type { LocationIntake } from "./location-intake.ts";
import { recordedOrigin } from "./origin.ts";
import { formatPageToken, pageLimit, parsePageToken } from "./page-token.ts";
import { type Presentable, presentOrders, sealedContext } from "./present-order.ts";
import { sealDriver } from "./seal-driver.ts";
import { createWatchTracking, type WatchTrackingDependencies } from "./watch-tracking.ts";

export type OrderTrackingDependencies = WatchTrackingDependencies & {
  readonly intake: Pick<LocationIntake, "learn" | "take" | "stored">;
  readonly orders: Transactor<OrderState>;
  readonly reader: LogReader;
  readonly trackings: OrderTrackings;
  readonly projector: Pick<Projector, "waitFor">;
  readonly keys: PersonalKeys;
  /** How long an order of a store may wait for what. */
  readonly deadlinesOf: (storeId: string) => Promise<OrderDeadlines>;
  readonly now: () => Date;
};

type HistoryEventInit = Exclude<MessageInitShape<typeof HistoryEventSchema>, { readonly $typeName: string }>;
type Note = { readonly index: number; readonly sealed: Sealed };

const SERVICE = "ordertrail.v1.OrderTrackingService";
const HEAD_POLL_MS = 20;

/** OrderTrackingService: turns requests into the domain's commands, carries them out, and shows what came of it. */
export function createOrderTrackingService(dependencies: OrderTrackingDependencies): ServiceHandlers<typeof OrderTrackingService> {
  const { orders, reader, trackings, locations, intake, projector, keys, deadlinesOf, now } = dependencies;

  /** Carries out a command on an order that the caller may act on, and shows the order after it. */
  async function carryOut(
    method: string,
    request: { readonly orderId: string; readonly requestId: string },
    command: OrderCommand,
    call: Call,
    refusal?: Refusal,
  ) {
    const { caller } = call;
    const identified = command.type === "UpdateStatus" && request.requestId !== "";
    const origin = await originOf(request.orderId, call);
    const outcome = await orders.transact(
      request.orderId,
      {
        method: `${SERVICE}/${method}`,
        requestId: request.requestId,
        correlationId: call.traceId,
        actor: { role: caller.role, subject: caller.subject },
        door: call.door,
        origin,
        refusal,
        decide: (state) => {
          if (command.type !== "InitTracking" && (!state || !mayAccess(caller, state))) throw orderNotFound(request.orderId);
          return decide(state, identified ? { ...command, identified } : command, caller);
        },
        ...(command.type === "UpdateStatus" && { mayHaveBeenSo: (state) => hasBeen(state, command.status) }),
      },
      call.signal,
    );
    // A request_id seen before is answered without deciding, so the right to the answer is looked at here.
    if (!mayAccess(caller, outcome.state) && !(outcome.before && mayAccess(caller, outcome.before))) throw orderNotFound(request.orderId);
    if (outcome.appended) logMove(call, request.requestId, outcome);
    return { order: await show(await locate(outcome), call) };
  }

  async function locate(snapshot: Snapshot<OrderState>): Promise<Presentable> {
    const location = showsLocation(snapshot.state) ? await locations.find(snapshot.state.orderId) : undefined;
    return { ...snapshot, location };
  }

  async function show(order: Presentable, { caller }: Call): Promise<OrderTracking> {
    const [shown] = await presentOrders([order], caller, keys);
    return shown as OrderTracking;
  }

  /** The order as it stands, if the caller may see it. Another's order is as if it did not exist. */
  async function readOwn(orderId: string, call: Call, minPosition = 0n): Promise<Snapshot<OrderState>> {
    await untilLogReaches(Number(minPosition), call);
    const snapshot = await orders.read(orderId);
    if (!snapshot || !mayAccess(call.caller, snapshot.state)) throw orderNotFound(orderId);
    return snapshot;
  }

  /** From where a call comes, as it is recorded. Nothing is sealed, and no key made, for one whose order it is not. */
  async function originOf(orderId: string, call: Call): Promise<Origin> {
    if (!isPersonal(call.caller)) return await recordedOrigin(call, orderId, keys);
    const snapshot = await orders.read(orderId);
    return snapshot && mayAccess(call.caller, snapshot.state) ? await recordedOrigin(call, orderId, keys) : create(OriginSchema);
  }

  /** Under whose key what the order says of its customer is sealed. The right to the order is checked when the command is decided. */
  async function customerOf(orderId: string): Promise<string> {
    const snapshot = await orders.read(orderId);
    if (!snapshot) throw orderNotFound(orderId);
    return `customer-${snapshot.state.customerId}`;
  }

  /** A remark on an order, sealed. Of one who has been erased nothing personal is kept; the order goes on all the same. */
  async function sealNote(orderId: string, note: string): Promise<Sealed | undefined> {
    return await keys.seal(await customerOf(orderId), Buffer.from(note), sealedContext.note(orderId));
  }

  /** Why an order is called off: an organisation's reason is to outlive the customer's erasure, a person's own words are not. */
  async function reasonOf(orderId: string, text: string, { caller }: Call): Promise<{ reason: string; note?: Sealed | undefined }> {
    return isPersonal(caller) ? { reason: "", note: await sealNote(orderId, text) } : { reason: text };
  }

  async function untilLogReaches(position: number, call: Call): Promise<void> {
    if (position === 0) return;
    const signal = whileWaiting(call);
    while ((await reader.head()) < position) {
      await pause(HEAD_POLL_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }

  function resolve(
    method: string,
    request: { readonly orderId: string; readonly requestId: string; readonly resolutions: readonly SubstitutionResolution[] },
    call: Call,
  ) {
    const resolutions = request.resolutions.map(({ substitutionId, approved }) => ({ substitutionId, approved: approved === true }));
    return carryOut(method, request, { type: "ResolveSubstitutions", resolutions }, call);
  }

  return {
    ...createWatchTracking(dependencies),

    async initTracking(request, call) {
      const { orderId, storeId, customerId, deliveryProvider, items, recipient, metadata, substitutionPolicy } = request;
      const [sealed, deadlines] = await Promise.all([
        recipient && keys.seal(`customer-${customerId}`, toBinary(RecipientSchema, recipient), sealedContext.recipient(orderId)),
        deadlinesOf(storeId),
      ]);
      return await carryOut(
        "InitTracking",
        request,
        {
          ...{ type: "InitTracking", orderId, storeId, customerId, deliveryProvider, items, recipient: sealed, metadata },
          ...{ substitutionPolicy, deadlines },
        },
        call,
        // A request_id of before the erasure still gets its answer, so this is for the transaction to refuse.
        recipient && !sealed ? customerErased(customerId) : undefined,
      );
    },

    async getTracking({ orderId, minPosition }, call) {
      await untilLogReaches(Number(minPosition), call);
      // Most orders that are asked for are on their way: both at once take one round trip's time, not two.
      const [snapshot, location] = await Promise.all([readOwn(orderId, call), locations.find(orderId)]);
      return { order: await show({ ...snapshot, location }, call) };
    },

    async listTrackings(request, call) {
      const scope = scopeOf(call.caller);
      const filters = {
        ...(request.storeId !== "" && { storeId: request.storeId }),
        ...(request.customerId !== "" && { customerId: request.customerId }),
        ...(request.statuses.length > 0 && { statuses: request.statuses }),
        ...(request.deliveryProvider !== 0 && { deliveryProvider: request.deliveryProvider }),
        ...(request.createdFrom && { createdFrom: timestampDate(request.createdFrom) }),
        ...(request.createdBefore && { createdBefore: timestampDate(request.createdBefore) }),
      };
      checkFilters(scope, { ...filters, ...(filters.deliveryProvider && { provider: filters.deliveryProvider }) });
      const after = parsePageToken(request.pageToken, ["number", "string"], filters);
      await projector.waitFor("order_tracking", Number(request.minPosition), whileWaiting(call));
      const limit = pageLimit(request.pageSize);
      const found = await trackings.list({
        scope,
        filters,
        ...(after && { after: { createdAt: new Date(Number(after[0])), orderId: String(after[1]) } }),
        limit: limit + 1,
      });
      const page = found.slice(0, limit);
      const last = page.at(-1);
      return {
        orders: await presentOrders(page, call.caller, keys),
        nextPageToken: found.length > limit && last ? formatPageToken([last.state.createdAt.getTime(), last.state.orderId], filters) : "",
      };
    },

    async getHistory({ orderId, pageSize, pageToken, minPosition }, call) {
      const snapshot = await readOwn(orderId, call, minPosition);
      const after = Number(parsePageToken(pageToken, ["number"], { orderId })?.[0] ?? 0);
      const limit = pageLimit(pageSize);
      const mayRead = seesPersonalData(call.caller, snapshot.state).recipient;
      const events: HistoryEventInit[] = [];
      const notes: Note[] = [];
      let state: OrderState | undefined;
      let lastVersion = 0;
      for (const { position, entry } of await reader.readStream(orderStream(orderId), 0)) {
        const { actor, recordedAt, version, door, method, requestId } = entry;
        if (!actor || !recordedAt) continue;
        if (events.length >= limit) break;
        for (const event of entry.events) {
          const previousStatus = state?.status ?? OrderStatus.UNSPECIFIED;
          state = evolve(state, event, { actor, recordedAt: timestampDate(recordedAt) });
          if (version <= after) continue;
          if (event.note && mayRead) notes.push({ index: events.length, sealed: event.note });
          events.push({
            position: BigInt(position),
            version,
            recordedAt,
            type: eventType(event),
            previousStatus,
            status: state.status,
            actor,
            door,
            method,
            requestId,
            inferred: event.inferred,
            ...(event.kind.case === "driverMilestoneReached" && { milestone: event.kind.value.milestone }),
          });
        }
        lastVersion = version;
      }
      const opened = await keys.openMany(notes.map(({ sealed }) => ({ sealed, context: sealedContext.note(orderId) })));
      notes.forEach(({ index }, n) => {
        const event = events[index];
        if (event) event.note = Buffer.from(opened[n] ?? []).toString();
      });
      const shown = call.caller.role === Role.LINK ? events.map(presentEventToLink) : events;
      return { events: shown, nextPageToken: lastVersion < snapshot.version ? formatPageToken([lastVersion], { orderId }) : "" };
    },

    async updateStatus(request, call) {
      const { orderId, status, note } = request;
      if (note === "") return await carryOut("UpdateStatus", request, { type: "UpdateStatus", status }, call);
      const said = status === OrderStatus.CANCELLED ? await reasonOf(orderId, note, call) : { note: await sealNote(orderId, note) };
      return await carryOut("UpdateStatus", request, { type: "UpdateStatus", status, ...said }, call);
    },

    acknowledgeOrder(request, call) {
      const readyAt = request.readyAt && timestampDate(request.readyAt);
      return carryOut(
        "AcknowledgeOrder",
        request,
        { type: "AcknowledgeOrder", accepted: request.accepted ?? true, reason: request.reason, readyAt },
        call,
      );
    },

    updateSubstitutions(request, call) {
      if (request.resolutions.length > 0) return resolve("UpdateSubstitutions", request, call);
      const substitutions = request.substitutions.map(({ substitutionId, originalItem, replacementItem, reason }) =>
        create(ProposedSubstitutionSchema, {
          substitutionId: substitutionId || randomUUID(),
          reason,
          ...(originalItem && { originalItem }),
          ...(replacementItem && { replacementItem }),
        }),
      );
      return carryOut("UpdateSubstitutions", request, { type: "ProposeSubstitutions", substitutions }, call);
    },

    resolveSubstitutions(request, call) {
      return resolve("ResolveSubstitutions", request, call);
    },

    async assignDriver(request, call) {
      const { orderId, driverDetails, deliveryProvider, delivery, eta } = request;
      if (call.caller.role === Role.PARTNER && deliveryProvider !== 0 && deliveryProvider !== call.caller.provider) {
        throw new Refusal("PERMISSION_DENIED", "delivery_provider: a partner delivers for itself only", { field: "delivery_provider" });
      }
      if (!driverDetails) throw new Error("validation lets no AssignDriver without driver_details through");
      await customerOf(orderId);
      const driver = await sealDriver(keys, orderId, driverDetails);
      const job =
        delivery &&
        create(DeliveryJobSchema, {
          providerDeliveryId: delivery.providerDeliveryId,
          trackingUrl: delivery.trackingUrl,
          ...(delivery.fee && { fee: delivery.fee }),
        });
      return await carryOut(
        "AssignDriver",
        request,
        { type: "AssignDriver", driver, deliveryProvider, delivery: job, eta: eta && timestampDate(eta) },
        call,
      );
    },

    async updateLocation(request, call) {
      const { orderId, latitude = 0, longitude = 0, headingDeg, speedMps, accuracyM } = request;
      const snapshot = await readOwn(orderId, call);
      if (!takesLocation(snapshot.state)) {
        throw new Refusal(
          "DRIVER_NOT_ASSIGNED",
          `order ${orderId} is ${OrderStatus[snapshot.state.status]} and has no driver on the way: assign one first`,
          {
            order_id: orderId,
            current_status: OrderStatus[snapshot.state.status],
          },
        );
      }
      const recordedAt = request.recordedAt ? timestampDate(request.recordedAt) : now();
      const point = { latitude, longitude, headingDeg, speedMps, accuracyM, recordedAt };
      intake.learn(snapshot);
      const [dropped] = await intake.take([{ orderId, point }], (state) => mayAccess(call.caller, state));
      await intake.stored(orderId);
      const order = await show(await locate(snapshot), call);
      return { order, dropped: dropped ? LocationDropReason[dropped] : LocationDropReason.UNSPECIFIED };
    },

    async markDelivered(request, call) {
      const { orderId, proofOfDelivery } = request;
      const deliveredAt = proofOfDelivery?.deliveredAt ? timestampDate(proofOfDelivery.deliveredAt) : now();
      const { recipientName = "", photoUrl = "", note = "" } = proofOfDelivery ?? {};
      const details = toBinary(ProofOfDeliverySchema, create(ProofOfDeliverySchema, { recipientName, photoUrl, note }));
      if (details.length === 0) return await carryOut("MarkDelivered", request, { type: "MarkDelivered", deliveredAt }, call);
      const proof = await keys.seal(await customerOf(orderId), details, sealedContext.proof(orderId));
      return await carryOut("MarkDelivered", request, { type: "MarkDelivered", deliveredAt, proof }, call);
    },

    async cancelOrder(request, call) {
      const said = await reasonOf(request.orderId, request.reason, call);
      return await carryOut("CancelOrder", request, { type: "CancelOrder", ...said }, call);
    },
  };
}

/** Ends the wait for a position: what others write will not come here any more once the process is asked to end. */
function whileWaiting({ signal, stopping }: Call): AbortSignal {
  return AbortSignal.any([signal, stopping]);
}

/** An order takes its driver's place from when a driver is known until the delivery has ended. */
function customerErased(customerId: string): Refusal {
  return new Refusal(
    "CUSTOMER_ERASED",
    `customer ${customerId} has been erased, and no personal data is taken for them any more: use a new customer_id`,
    { customer_id: customerId },
  );
}

function logMove(call: Call, requestId: string, { before, state, version, position }: Outcome<OrderState>): void {
  call.log(
    {
      order_id: state.orderId,
      ...(requestId !== "" && { request_id: requestId }),
      position,
      version,
      from: before && OrderStatus[before.status],
      to: OrderStatus[state.status],
      role: Role[call.caller.role],
    },
    before?.status === state.status ? "order changed" : "order moved",
  );
}
