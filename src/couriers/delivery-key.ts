/** How an order and the number of its request are one name at a provider: letters, digits, `-` and `.`, as all of them take. */
export function deliveryKey(orderId: string, attempt: number): string {
  return `${orderId}.${attempt}`;
}

/** The order and the number in such a name; undefined when it is not one of ours. */
export function parseDeliveryKey(key: string): { readonly orderId: string; readonly attempt: number } | undefined {
  const [, orderId, attempt] = /^([A-Za-z0-9_-]{1,64})\.([1-9][0-9]{0,5})$/.exec(key) ?? [];
  return orderId === undefined ? undefined : { orderId, attempt: Number(attempt) };
}
