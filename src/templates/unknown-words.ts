import type { TemplateLocale } from "./template-files.ts";

/** What stands in a WhatsApp message for what is not known, as Meta refuses an empty parameter; `other` for all that is not named here. */
export const UNKNOWN_WORDS: Readonly<Record<TemplateLocale, Readonly<Record<string, string>> & { readonly other: string }>> = {
  en: {
    customer_first_name: "there",
    store_name: "the store",
    driver_first_name: "your driver",
    eta: "not known yet",
    due_at: "as soon as you can",
    tracking_url: "ask the store",
    vehicle: "not known",
    reason: "not given",
    other: "-",
  },
  es: {
    customer_first_name: "qué tal",
    store_name: "la tienda",
    driver_first_name: "tu repartidor",
    eta: "por confirmar",
    due_at: "cuanto antes",
    tracking_url: "pregunta en la tienda",
    vehicle: "por confirmar",
    reason: "sin indicar",
    other: "-",
  },
};
