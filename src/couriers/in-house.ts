import { create } from "@bufbuild/protobuf";
import { DeliveryProvider, MoneySchema } from "../gen/ordertrail/events/v1/values_pb.js";
import { type Courier, CourierError, type Delivery, WebhookRefused } from "./courier.ts";
import { deliveryKey, parseDeliveryKey } from "./delivery-key.ts";

/** The platform's own drivers. */
export type InHouseSettings = {
  /** What a delivery costs, in minor units. */
  readonly feeMinor: number;
  /** ISO 4217. */
  readonly currency: string;
};

const QUOTE_MS = 3_600_000;

/**
 * The store's own drivers: somebody there names one by AssignDriver. There is nobody to call, so a delivery is what its name says, and
 * what becomes of it stands in the order.
 */
export function createInHouse({ feeMinor, currency }: InHouseSettings, clock: () => Date): Courier {
  const fee = () => create(MoneySchema, { amountMinor: BigInt(feeMinor), currency });

  function deliveryOf(providerDeliveryId: string): Delivery {
    if (!parseDeliveryKey(providerDeliveryId)) throw new CourierError("refused", "unknown_delivery");
    return {
      ...{
        providerDeliveryId,
        status: "REQUESTED",
        providerStatus: "requested",
        fee: fee(),
        trackingUrl: "",
        endReason: "",
        isEndedByUs: false,
      },
      ...{ courier: undefined, point: undefined, pickupAt: undefined, dropoffAt: undefined },
    };
  }

  return {
    provider: DeliveryProvider.IN_HOUSE,
    signsWebhooks: true,
    async quote({ orderId, attempt }) {
      return { quoteId: deliveryKey(orderId, attempt), fee: fee(), expiresAt: new Date(clock().getTime() + QUOTE_MS) };
    },
    create: async ({ orderId, attempt }) => deliveryOf(deliveryKey(orderId, attempt)),
    get: async (providerDeliveryId) => deliveryOf(providerDeliveryId),
    async cancel(providerDeliveryId) {
      deliveryOf(providerDeliveryId);
    },
    metrics: () => [],
    readWebhook() {
      throw new WebhookRefused("forged", "nobody sends webhooks for the platform's own drivers");
    },
  };
}
