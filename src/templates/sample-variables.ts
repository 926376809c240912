import type { TemplateName } from "../domain/template-names.ts";
import type { OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { MessageVariables } from "./message-variables.ts";
import { channelsOf, type TemplateLocale } from "./template-files.ts";

type Sample = Pick<MessageVariables, "customer_first_name" | "store_name" | "driver_first_name" | "vehicle" | "items" | "substitutions"> & {
  readonly reasons: { readonly order: string; readonly store: string; readonly delivery: string };
};

const SAMPLES: Readonly<Record<TemplateLocale, Sample>> = {
  en: {
    customer_first_name: "Sam",
    store_name: "Sample Market",
    driver_first_name: "Alex",
    vehicle: "blue bicycle",
    items: [
      { name: "Oat milk", quantity: "2" },
      { name: "Bananas", quantity: "1.5 kg" },
      { name: "Salt & vinegar crisps", quantity: "1" },
    ],
    substitutions: [
      { original: "Oat milk", replacement: "Soy milk", price: "1.99", reason: "sold out today", answer: "" },
      { original: "Bananas", replacement: "", price: "", reason: "none ripe", answer: "" },
    ],
    reasons: { order: "the store is closed today", store: "the order is not confirmed", delivery: "nobody was at home" },
  },
  es: {
    customer_first_name: "Inés",
    store_name: "Mercado Ejemplo",
    driver_first_name: "Raúl",
    vehicle: "bicicleta azul",
    items: [
      { name: "Leche de avena", quantity: "2" },
      { name: "Plátanos", quantity: "1,5 kg" },
      { name: "Patatas con sal y vinagre", quantity: "1" },
    ],
    substitutions: [
      { original: "Leche de avena", replacement: "Leche de soja", price: "1,99", reason: "hoy se ha agotado", answer: "" },
      { original: "Plátanos", replacement: "", price: "", reason: "no hay maduros", answer: "" },
    ],
    reasons: { order: "la tienda cierra hoy", store: "el pedido no está confirmado", delivery: "no había nadie en casa" },
  },
};

const STATUSES: Readonly<Record<TemplateName, keyof typeof OrderStatus>> = {
  "order-received": "SUBMITTED",
  "order-confirmed": "STORE_ACKNOWLEDGED",
  "order-picking": "PICKING_IN_PROGRESS",
  "order-ready": "READY_FOR_PICKUP",
  "order-cancelled": "CANCELLED",
  "substitutions-needed": "SUBSTITUTIONS_NEEDED",
  "substitutions-reminder": "SUBSTITUTIONS_NEEDED",
  "driver-assigned": "DRIVER_ASSIGNED",
  "order-on-the-way": "IN_TRANSIT",
  "driver-near": "IN_TRANSIT",
  "driver-arrived": "IN_TRANSIT",
  "order-delivered": "DELIVERED",
  "delivery-failed": "RETURNING",
  "store-new-order": "STORE_NOTIFIED",
  "store-reminder": "STORE_NOTIFIED",
  "store-escalation": "STORE_NOTIFIED",
  "store-order-cancelled": "CANCELLED",
  "store-substitutions-answered": "PICKING_IN_PROGRESS",
  "operator-escalation": "STORE_NOTIFIED",
};

/** Made-up values for every variable of a template, for previews and tests. */
export function sampleVariables(template: TemplateName, locale: TemplateLocale): MessageVariables {
  const { reasons, substitutions, ...sample } = SAMPLES[locale];
  const isAnswered = template === "store-substitutions-answered";
  return {
    ...sample,
    order_id: "sample-1042",
    status: STATUSES[template],
    eta: "18:35",
    due_at: "17:50",
    item_count: sample.items.length,
    substitutions: substitutions.map((substitution, index) => ({
      ...substitution,
      answer: isAnswered ? (index === 0 ? "APPROVED" : "REJECTED") : "",
    })),
    reason: reasonOf(template, reasons),
    tracking_url: "https://orders.example.com/o/1042",
    unsubscribe_url: channelsOf(template).includes("push") ? "https://orders.example.com/unsubscribe/1042" : "",
  };
}

function reasonOf(template: TemplateName, reasons: Sample["reasons"]): string {
  if (template === "delivery-failed") return reasons.delivery;
  return template.endsWith("order-cancelled") ? reasons.order : reasons.store;
}
