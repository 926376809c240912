/** Every template: a folder of this name holds its texts. */
export const TEMPLATE_NAMES = [
  "order-received",
  "order-confirmed",
  "order-picking",
  "order-ready",
  "order-cancelled",
  "substitutions-needed",
  "substitutions-reminder",
  "driver-assigned",
  "order-on-the-way",
  "driver-near",
  "driver-arrived",
  "order-delivered",
  "delivery-failed",
  "store-new-order",
  "store-reminder",
  "store-escalation",
  "store-order-cancelled",
  "store-substitutions-answered",
  "operator-escalation",
] as const;

export type TemplateName = (typeof TEMPLATE_NAMES)[number];
