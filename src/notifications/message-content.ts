import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { OrderState } from "../domain/order.ts";
import type { StoreState } from "../domain/store.ts";
import { Deadline, type Item, OrderStatus, Role, SubstitutionStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderTracking } from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { Snapshot } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import { presentOrders } from "../services/present-order.ts";
import type { MessageVariables } from "../templates/message-variables.ts";

/** For whom, and in what language and time zone, a message is written. */
export type Reader = { readonly locale: string; readonly timeZone: string; readonly unsubscribeUrl: string };

/** Ordertrail itself writes what the customer reads: it sees what an operator sees. */
const WRITER = { role: Role.OPERATOR, subject: "ordertrail" };

/** What templates may say of an order as it stands. Personal data: not for logs. */
export async function messageVariables(
  order: Snapshot<OrderState>,
  store: StoreState | undefined,
  reader: Reader,
  keys: PersonalKeys,
): Promise<MessageVariables> {
  const [shown] = await presentOrders([order], WRITER, keys);
  const { state } = order;
  const time = (at: Date | undefined) => (at ? timeOfDay(at, reader) : "");
  const { driverDetails: driver, recipient, eta } = shown as OrderTracking;
  return {
    order_id: state.orderId,
    status: OrderStatus[state.status],
    customer_first_name: firstName(recipient?.name),
    store_name: store?.profile?.name ?? "",
    driver_first_name: firstName(driver?.name),
    vehicle: driver?.vehicleType ?? "",
    eta: time(eta && timestampDate(eta)),
    due_at: time(state.waiting?.escalatesAt),
    items: state.items.map(({ name, quantity }) => ({ name, quantity: String(quantity) })),
    item_count: state.items.length,
    substitutions: state.substitutions.map(({ originalItem, replacementItem, reason, status }) => ({
      original: originalItem?.name ?? "",
      replacement: replacementItem?.name ?? "",
      price: price(replacementItem, reader.locale),
      reason,
      answer: status === SubstitutionStatus.PROPOSED ? "" : SubstitutionStatus[status],
    })),
    reason: state.cancellation?.reason || (state.waiting ? Deadline[state.waiting.deadline] : ""),
    // A link would have to be made for each message; templates leave it out where there is none.
    tracking_url: "",
    unsubscribe_url: reader.unsubscribeUrl,
  };
}

function firstName(name = ""): string {
  return name.trim().split(/\s+/)[0] ?? "";
}

function timeOfDay(at: Date, { locale, timeZone }: Reader): string {
  return new Intl.DateTimeFormat(locale, { timeZone, hour: "2-digit", minute: "2-digit" }).format(at);
}

function price(item: Item | undefined, locale: string): string {
  const { amountMinor, currency = "" } = item?.unitPrice ?? {};
  if (amountMinor === undefined || currency === "") return "";
  const format = new Intl.NumberFormat(locale, { style: "currency", currency });
  const digits = format.resolvedOptions().maximumFractionDigits ?? 2;
  return format.format(Number(amountMinor) / 10 ** digits);
}
