import type { Document, IndexDescription } from "mongodb";
import type { RecordedEntry } from "../log/log-entry.ts";

/** A read model that is made of the log, and of nothing else, one document a key. */
export type Projection = {
  /** Also the identifier of its checkpoint. */
  readonly name: string;
  /** The collection that is read. Copies of it are named after it. */
  readonly collection: string;
  /** Raised with every change of the code that makes old documents differ from new ones: the projection is then rebuilt. */
  readonly revision: number;
  /** The field that identifies a document. */
  readonly key: string;
  /** The unique index on the key, without which a copy cannot be written. */
  readonly keyIndex: IndexDescription;
  /** The other indexes. */
  readonly indexes: readonly IndexDescription[];
  /** Top-level fields that do not come from the log. `verify` leaves them out. */
  readonly foreignFields: readonly string[];
  /** For how long, under load, changes are gathered before they are written, unless somebody waits for them. A quarter of a second, if absent. */
  readonly restMs?: number;
  /**
   * Begins to write a copy. States are read from the documents of the copy where it may be `trusted`: not when another
   * revision wrote them. `breathe`, if given, is awaited after each command to the database, with the time that it took.
   */
  open(collection: string, options: { readonly trusted: boolean; readonly breathe?: (tookMs: number) => Promise<void> }): ProjectionWriter;
  /** Brings the foreign fields into a copy. */
  carryOver(collection: string): Promise<void>;
  /** The document of a key as the first `version` entries of its stream tell it, without foreign fields; undefined if the log has fewer. */
  documentAt(key: string, version: number): Promise<Document | undefined>;
};

/** Writes one copy of a projection. One call at a time; after an error, open a new one. */
export type ProjectionWriter = {
  /** Takes in entries, in the order of the log, and may hold back what they lead to. Those taken in before change nothing. */
  apply(entries: readonly RecordedEntry[]): Promise<void>;
  /** Resolves when all that was taken in is durable on a majority. */
  flush(): Promise<void>;
};
