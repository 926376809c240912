import type { Db, Document } from "mongodb";

/** The documents of collections, by the collections' names. */
export type Dump = ReadonlyMap<string, readonly Document[]>;

/** Everything in a database, but for its indexes. */
export async function dumpOf(db: Db): Promise<Dump> {
  const names = (await db.listCollections({}, { nameOnly: true }).toArray()).map(({ name }) => name);
  return new Map(
    await Promise.all(names.map(async (name) => [name, await db.collection(name).find({}, { promoteLongs: false }).toArray()] as const)),
  );
}

/** Puts the collections of a dump back as they were, and drops those that are in a dump of the whole no more. */
export async function restore(db: Db, dump: Dump): Promise<void> {
  if (dump.size > 1) await db.dropDatabase();
  for (const [name, documents] of dump) {
    await db.collection(name).deleteMany({});
    if (documents.length > 0) await db.collection(name).insertMany([...documents]);
  }
}
