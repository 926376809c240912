/** What a template may say, in snake_case as the templates name it. Personal data: not for logs. Empty where it is not known. */
export type MessageVariables = {
  readonly order_id: string;
  /** The status's name, such as "IN_TRANSIT". */
  readonly status: string;
  readonly customer_first_name: string;
  readonly store_name: string;
  readonly driver_first_name: string;
  readonly vehicle: string;
  /** When it is expected at the customer's, as a time of day in their time zone and locale, such as "18:35". */
  readonly eta: string;
  /** When the store or customer must have answered, likewise. */
  readonly due_at: string;
  readonly items: readonly MessageItem[];
  readonly item_count: number;
  readonly substitutions: readonly MessageSubstitution[];
  /** Why it was called off, or what nobody has done. */
  readonly reason: string;
  /** Where the customer sees their order; empty when there is no such page. */
  readonly tracking_url: string;
  /** Where email is unsubscribed from; empty when it cannot be. */
  readonly unsubscribe_url: string;
};

export type MessageItem = { readonly name: string; readonly quantity: string };

/** A proposed replacement; `replacement` is empty when only a refund is offered. */
export type MessageSubstitution = {
  readonly original: string;
  readonly replacement: string;
  readonly price: string;
  readonly reason: string;
  /** Whether it was approved; empty while nobody has answered. */
  readonly answer: string;
};
