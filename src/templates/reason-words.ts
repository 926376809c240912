import { UNACKNOWLEDGED } from "../domain/order-deadlines.ts";
import type { Deadline } from "../gen/ordertrail/events/v1/values_pb.js";
import type { TemplateLocale } from "./template-files.ts";

type ReasonCode = typeof UNACKNOWLEDGED | Exclude<keyof typeof Deadline, "UNSPECIFIED">;

const WORDS: Readonly<Record<TemplateLocale, Readonly<Record<ReasonCode, string>>>> = {
  en: {
    [UNACKNOWLEDGED]: "the store did not confirm it in time",
    ACKNOWLEDGMENT: "the store has not confirmed the order",
    SUBSTITUTIONS: "the customer has not answered about substitutions",
    DRIVER_ASSIGNMENT: "the order has no driver",
    PICKUP: "the driver has not picked the order up",
  },
  es: {
    [UNACKNOWLEDGED]: "la tienda no lo confirmó a tiempo",
    ACKNOWLEDGMENT: "la tienda no ha confirmado el pedido",
    SUBSTITUTIONS: "el cliente no ha respondido sobre las sustituciones",
    DRIVER_ASSIGNMENT: "el pedido no tiene repartidor",
    PICKUP: "el repartidor no ha recogido el pedido",
  },
};

/** A reason that the system itself gave, in words; any other is what somebody wrote, and stays. */
export function reasonInWords(reason: string, locale: TemplateLocale): string {
  return Object.entries(WORDS[locale]).find(([code]) => code === reason)?.[1] ?? reason;
}
