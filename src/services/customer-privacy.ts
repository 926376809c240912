import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { checkFilters, scopeOf } from "../access/permissions.ts";
import type { TrackingLink, TrackingLinks } from "../access/tracking-links.ts";
import type { Caller } from "../domain/caller.ts";
import { orderStream } from "../domain/order.ts";
import { isFinal } from "../domain/order-moves.ts";
import { parsePeer } from "../domain/peer.ts";
import { Refusal } from "../domain/refusal.ts";
import { OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { AuditService, CustomerLinkSchema, CustomerOrderSchema, ErasureReceiptSchema } from "../gen/ordertrail/v1/audit_service_pb.js";
import {
  GetPreferencesRequestSchema,
  ListNotificationsRequestSchema,
  type NotificationService,
} from "../gen/ordertrail/v1/notification_service_pb.js";
import type { OrderTrackingService } from "../gen/ordertrail/v1/order_tracking_service_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { ErasureReceipt, Erasures } from "../privacy/erasures.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { OrderTrackings } from "../projections/order-tracking.ts";
import type { Projector } from "../projections/projector.ts";
import type { Call, ServiceHandlers } from "./call.ts";
import { explainEntries } from "./explain-entries.ts";
import { formatPageToken, parsePageToken } from "./page-token.ts";
import { presentOrders } from "./present-order.ts";

export type CustomerPrivacyDependencies = {
  readonly erasures: Pick<Erasures, "erase" | "receiptOf">;
  readonly links: Pick<TrackingLinks, "madeBy">;
  readonly trackings: OrderTrackings;
  /** By which the history of an order is shown. */
  readonly tracking: Pick<ServiceHandlers<typeof OrderTrackingService>, "getHistory">;
  /** By which what they wish and were told is shown. */
  readonly messages: Pick<ServiceHandlers<typeof NotificationService>, "getPreferences" | "listNotifications">;
  readonly projector: Pick<Projector, "waitFor">;
  readonly reader: Pick<LogReader, "head" | "readStream">;
  readonly keys: PersonalKeys;
  readonly now: () => Date;
};

type CustomerOrderInit = Exclude<MessageInitShape<typeof CustomerOrderSchema>, { readonly $typeName: string }>;

const UNDER_WAY = Object.values(OrderStatus).filter(
  (status): status is OrderStatus => typeof status === "number" && status !== OrderStatus.UNSPECIFIED && !isFinal(status),
);
const NAMED_ORDERS = 10;
const DEFAULT_PAGE_ORDERS = 50;
const MAX_PAGE_ORDERS = 100;
const HISTORY_PAGE = 1000;
const MOST_MESSAGES = 1000;

/** The part of AuditService that looks after the people in the history. */
export function createCustomerPrivacy(
  dependencies: CustomerPrivacyDependencies,
): Pick<ServiceHandlers<typeof AuditService>, "eraseCustomer" | "exportCustomerData"> {
  const { erasures, links, trackings, tracking, messages, projector, reader, keys, now } = dependencies;

  /** Waits until lists show every order there is. */
  async function untilListed({ signal }: Call): Promise<void> {
    await projector.waitFor("order_tracking", await reader.head(), signal);
  }

  async function refuseUnderWay(customerId: string, call: Call): Promise<void> {
    await untilListed(call);
    const found = await trackings.list({ scope: { customerId }, filters: { statuses: UNDER_WAY }, limit: NAMED_ORDERS + 1 });
    if (found.length === 0) return;
    const named = found.slice(0, NAMED_ORDERS).map(({ state }) => state.orderId);
    throw new Refusal(
      "CUSTOMER_HAS_ORDERS_UNDER_WAY",
      `customer ${customerId} has orders under way (${named.join(", ")}${found.length > NAMED_ORDERS ? " and more" : ""}), which could not be delivered without their data: end them first, or set include_orders_under_way`,
      { customer_id: customerId, order_ids: named.join(",") },
    );
  }

  /** All of an order's history, in the eyes of its customer. */
  async function historyOf(orderId: string, call: Call): Promise<NonNullable<CustomerOrderInit["events"]>> {
    const events: NonNullable<CustomerOrderInit["events"]> = [];
    let pageToken = "";
    do {
      const page = await tracking.getHistory(
        { $typeName: "ordertrail.v1.GetHistoryRequest", orderId, pageSize: HISTORY_PAGE, pageToken, minPosition: 0n },
        call,
      );
      events.push(...(page.events ?? []));
      pageToken = page.nextPageToken ?? "";
    } while (pageToken !== "");
    return events;
  }

  /** From where the customer acted on an order. */
  async function addressesOf(orderId: string, customer: Caller): Promise<NonNullable<CustomerOrderInit["addresses"]>> {
    const explained = await explainEntries(orderId, await reader.readStream(orderStream(orderId), 0), customer, keys);
    return explained
      .filter(({ actor, address }) => actor?.role === customer.role && actor.subject === customer.subject && address !== "")
      .map(({ position = 0n, recordedAt, address = "" }) => ({ position, address, ...(recordedAt && { recordedAt }) }));
  }

  /** What a customer wishes and was told, in their own eyes. */
  async function messagesOf(customerId: string, call: Call) {
    const own = { ...call, caller: { role: Role.CUSTOMER, subject: customerId } };
    const minPosition = BigInt(await reader.head());
    const [{ preferences }, { notifications }] = await Promise.all([
      messages.getPreferences(create(GetPreferencesRequestSchema), own),
      messages.listNotifications(create(ListNotificationsRequestSchema, { pageSize: MOST_MESSAGES, minPosition }), own),
    ]);
    return { ...(preferences && { preferences }), ...(notifications && { notifications }) };
  }

  return {
    async eraseCustomer({ customerId, includeOrdersUnderWay, requestId }, call) {
      const person = `customer-${customerId}`;
      const known = await erasures.receiptOf(person);
      if (known) return { receipt: presentReceipt(known) };
      if (!includeOrdersUnderWay) await refuseUnderWay(customerId, call);
      const { caller, door, traceId, peer } = call;
      const receipt = await erasures.erase(person, {
        requestedBy: { role: caller.role, subject: caller.subject },
        door,
        ...parsePeer(peer),
        requestId,
        correlationId: traceId,
      });
      return { receipt: presentReceipt(receipt) };
    },

    async exportCustomerData({ customerId, pageSize, pageToken }, call) {
      checkFilters(scopeOf(call.caller), { customerId });
      const customer: Caller = { role: Role.CUSTOMER, subject: customerId };
      const after = parsePageToken(pageToken, ["number", "string"], { customerId });
      await untilListed(call);
      const limit = Math.min(pageSize || DEFAULT_PAGE_ORDERS, MAX_PAGE_ORDERS);
      const found = await trackings.list({
        scope: { customerId },
        filters: {},
        ...(after && { after: { createdAt: new Date(Number(after[0])), orderId: String(after[1]) } }),
        limit: limit + 1,
      });
      const page = found.slice(0, limit);
      const made = await links.madeBy(
        customer,
        page.map(({ state }) => state.orderId),
      );
      const orders: CustomerOrderInit[] = [];
      for (const order of await presentOrders(page, customer, keys)) {
        const { orderId } = order;
        const events = await historyOf(orderId, { ...call, caller: customer });
        const own = made.filter((link) => link.orderId === orderId).map(presentLink);
        orders.push({ order, events, addresses: await addressesOf(orderId, customer), links: own });
      }
      const last = page.at(-1);
      const erasure = await erasures.receiptOf(`customer-${customerId}`);
      call.log({ customer_id: customerId, orders: orders.length }, "the data of a customer was exported");
      return {
        customerId,
        exportedAt: timestampFromDate(now()),
        orders,
        ...(erasure && { erasure: presentReceipt(erasure) }),
        ...(pageToken === "" && (await messagesOf(customerId, call))),
        nextPageToken:
          found.length > limit && last ? formatPageToken([last.state.createdAt.getTime(), last.state.orderId], { customerId }) : "",
      };
    },
  };
}

/** Without its token, which is not kept: whoever has it may see the order. */
function presentLink({ linkId, createdAt, expiresAt }: TrackingLink): MessageInitShape<typeof CustomerLinkSchema> {
  return { linkId, createdAt: timestampFromDate(createdAt), expiresAt: timestampFromDate(expiresAt) };
}

function presentReceipt(receipt: ErasureReceipt): MessageInitShape<typeof ErasureReceiptSchema> {
  const { person, requestedAt, erasedAt, requestedBy, position, keysDestroyed, orders, places } = receipt;
  return {
    customerId: person.slice("customer-".length),
    requestedAt: timestampFromDate(requestedAt),
    erasedAt: timestampFromDate(erasedAt),
    requestedBy: { role: requestedBy.role, subject: requestedBy.subject },
    position: BigInt(position),
    keysDestroyed,
    orders: BigInt(orders),
    places: places.map(({ place, documents }) => ({ place, documents: BigInt(documents) })),
  };
}
