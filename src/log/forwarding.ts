import type { EncodedEntry } from "./log-entry.ts";

/** What became of an entry that another process was asked to append; undefined when that is not known. */
export type ForwardOutcome = { readonly position: number } | "conflict" | "overloaded" | undefined;

/** Lets another process append, while there is one that does so for all. */
export type Forwarding = {
  /** Which process to ask; undefined when this one is to append itself. To be asked for every batch: it tells that this process appends, too. */
  writer(): string | undefined;
  /**
   * Has the writer append entries, and answers what became of each. All that it does not answer in time is "not known": it may be
   * recorded yet. `known` is the newest position that this process knows to be durable.
   */
  forward(writer: string, entries: readonly EncodedEntry[], known: number): Promise<readonly ForwardOutcome[]>;
};

/** The most bytes of bodies in one request: less than the 1 MiB that NATS takes by default. */
export const MAX_FORWARDED_BYTES = 512 * 1024;
