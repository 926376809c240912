import { create, fromBinary } from "@bufbuild/protobuf";
import type { DeliveryRequest, Waypoint } from "../couriers/courier.ts";
import type { OrderState } from "../domain/order.ts";
import { Refusal } from "../domain/refusal.ts";
import type { StoreState } from "../domain/store.ts";
import { type Item, type Money, MoneySchema } from "../gen/ordertrail/events/v1/values_pb.js";
import { RecipientSchema } from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import { sealedContext } from "./present-order.ts";

/** Makes what providers are asked, of an order as it stands. Throws a Refusal that says what the store or the order lacks. */
export type DeliveryRequests = (state: OrderState, attempt: number) => Promise<DeliveryRequest>;

/** Reads the store from the log, and opens the recipient for the time of the request. */
export function createDeliveryRequests(stores: Pick<Transactor<StoreState>, "read">, keys: PersonalKeys): DeliveryRequests {
  async function pickup(storeId: string): Promise<Waypoint> {
    const { profile } = (await stores.read(storeId))?.state ?? {};
    const { address, name = "", phone = "" } = profile ?? {};
    const missing = [name === "" && "name", phone === "" && "phone", !isComplete(address) && "address"].filter((part) => part !== false);
    if (!address || missing.length > 0) {
      throw new Refusal(
        "STORE_NOT_CONFIGURED",
        `no courier can be sent to store ${storeId}, of which this is not known: ${missing.join(", ")}. Set it by PutStore`,
        { store_id: storeId, missing: missing.join(",") },
      );
    }
    return { name, phone, address, latitude: address.latitude, longitude: address.longitude, instructions: "" };
  }

  async function dropoff({ orderId, recipient: sealed }: OrderState): Promise<Waypoint> {
    const opened = sealed && (await keys.open(sealed, sealedContext.recipient(orderId)));
    const { name = "", phone = "", address, instructions = "" } = opened ? fromBinary(RecipientSchema, opened) : {};
    const missing = [name === "" && "name", phone === "" && "phone", !isComplete(address) && "address"].filter((part) => part !== false);
    if (!address || missing.length > 0) {
      throw new Refusal(
        "RECIPIENT_INCOMPLETE",
        `no courier can be sent to the recipient of order ${orderId}, of whom this is not known: ${missing.join(", ")}. Give it with InitTracking`,
        { order_id: orderId, missing: missing.join(",") },
      );
    }
    return { name, phone, address, latitude: address.latitude, longitude: address.longitude, instructions };
  }

  return async (state, attempt) => ({
    orderId: state.orderId,
    attempt,
    storeId: state.storeId,
    pickup: await pickup(state.storeId),
    dropoff: await dropoff(state),
    items: state.items.map(({ name, quantity }) => ({ name, quantity })),
    value: worthOf(state.items),
    readyAt: state.readyAt,
  });
}

function isComplete(address: { readonly lines: readonly string[]; readonly city: string; readonly country: string } | undefined): boolean {
  return address !== undefined && address.lines.length > 0 && address.city !== "" && address.country !== "";
}

/** What the goods are worth; unknown unless all have a price in one currency. */
function worthOf(items: readonly Item[]): Money | undefined {
  const currency = items[0]?.unitPrice?.currency;
  if (currency === undefined || items.some(({ unitPrice }) => unitPrice?.currency !== currency)) return undefined;
  const total = items.reduce((sum, { unitPrice, quantity }) => sum + Number(unitPrice?.amountMinor ?? 0n) * quantity, 0);
  return create(MoneySchema, { amountMinor: BigInt(Math.round(total)), currency });
}
