import type { Db, Document, Filter } from "mongodb";

/** A collection that holds something personal in the clear, and how it is found and removed. */
type PersonalPlace = {
  readonly collection: string;
  /** The field that names the person, by what kind of person it is; or the field that names one of their orders, of one kind only if so said. */
  readonly by: { readonly customer?: string; readonly driver?: string } | { readonly order: string; readonly of?: "customer" };
  /** The whole documents, or these fields of theirs, which become null. */
  readonly remove: "documents" | readonly string[];
};

/**
 * Every collection that holds something personal in the clear, one line each. An erasure goes through all of them. What is
 * sealed need not be here: it is gone with its key.
 */
const PERSONAL_PLACES: readonly PersonalPlace[] = [
  { collection: "driver_locations", by: { order: "_id" }, remove: "documents" },
  { collection: "order_tracking", by: { customer: "customer_id", driver: "driver_details.driver_id" }, remove: ["driver_location"] },
  // Under which digests of addresses a customer was written to.
  { collection: "contact_index", by: { customer: "customer_id" }, remove: "documents" },
  // Whoever made them; those of a driver's orders are their customers'.
  { collection: "tracking_links", by: { order: "order_id", of: "customer" }, remove: "documents" },
];

/** The places in a database where something personal is held in the clear. */
export type PersonalPlaces = {
  /** How many documents of each collection tell something of a person. */
  count(person: string): Promise<Record<string, number>>;
  /** Removes it, durably on a majority, and revokes the tracking links of a customer's orders. Done again, it changes nothing. */
  remove(person: string): Promise<void>;
  /** How many orders there are of a person. */
  countOrders(person: string): Promise<number>;
};

const ORDERS_A_QUERY = 1000;

/** The kind and the identifier of a person, such as "customer" and "1" of "customer-1". */
export function kindOf(person: string): { readonly kind: string; readonly id: string } {
  const end = person.indexOf("-");
  return { kind: person.slice(0, end), id: person.slice(end + 1) };
}

/** The filter that finds the orders of a person in `order_tracking`; undefined for a kind of person that has none. */
export function ordersOf(person: string): Filter<Document> | undefined {
  const { kind, id } = kindOf(person);
  if (kind === "customer") return { customer_id: id };
  if (kind === "driver") return { "driver_details.driver_id": id };
  return undefined;
}

/**
 * The personal places of `db`. They are found by way of `order_tracking`, which must be up to date. `revokeLinks` revokes, durably,
 * the tracking links of some orders: who holds one is not to see a customer's order when the customer has been forgotten.
 */
export function createPersonalPlaces(db: Db, revokeLinks: (orderIds: readonly string[]) => Promise<void>): PersonalPlaces {
  const collection = (name: string) => db.collection(name, { readPreference: "primary", writeConcern: { w: "majority", journal: true } });

  /** A collection and the copies that are being built of it, one of which may take its place at any moment. */
  async function copiesOf(name: string): Promise<string[]> {
    const copies = await db.listCollections({ name: new RegExp(`^${name}_(rebuild|verify)_`) }, { nameOnly: true }).toArray();
    return [...copies.map((copy) => copy.name), name];
  }

  async function* orderIds(person: string): AsyncGenerator<string[], void, undefined> {
    const filter = ordersOf(person);
    if (!filter) return;
    const found = collection("order_tracking").find(filter, { projection: { _id: 0, order_id: 1 }, batchSize: ORDERS_A_QUERY });
    while (await found.hasNext()) yield found.readBufferedDocuments(ORDERS_A_QUERY).map(({ order_id }) => String(order_id));
  }

  async function* filters({ by, remove }: PersonalPlace, person: string): AsyncGenerator<Filter<Document>, void, undefined> {
    const there = remove === "documents" ? {} : { $or: remove.map((field) => ({ [field]: { $ne: null } })) };
    if ("order" in by) {
      if (by.of !== undefined && by.of !== kindOf(person).kind) return;
      for await (const ids of orderIds(person)) yield { ...there, [by.order]: { $in: ids } };
      return;
    }
    const { kind, id } = kindOf(person);
    const field = kind === "customer" ? by.customer : kind === "driver" ? by.driver : undefined;
    if (field !== undefined) yield { ...there, [field]: id };
  }

  return {
    async count(person) {
      const counts: Record<string, number> = {};
      for (const place of PERSONAL_PLACES) {
        counts[place.collection] = 0;
        for await (const filter of filters(place, person)) {
          counts[place.collection] = (counts[place.collection] ?? 0) + (await collection(place.collection).countDocuments(filter));
        }
      }
      return counts;
    },
    async remove(person) {
      // First, as nobody knows any more which links there are once their documents are gone.
      if (kindOf(person).kind === "customer") for await (const ids of orderIds(person)) await revokeLinks(ids);
      for (const place of PERSONAL_PLACES) {
        for (const name of await copiesOf(place.collection)) {
          for await (const filter of filters(place, person)) {
            if (place.remove === "documents") await collection(name).deleteMany(filter);
            else await collection(name).updateMany(filter, { $set: Object.fromEntries(place.remove.map((field) => [field, null])) });
          }
        }
      }
    },
    async countOrders(person) {
      const filter = ordersOf(person);
      return filter ? await collection("order_tracking").countDocuments(filter) : 0;
    },
  };
}
