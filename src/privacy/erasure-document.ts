import type { Binary, Collection, Db, Long } from "mongodb";
import { ROUND_TRIP_MS } from "./stored-key.ts";

/**
 * A document of `erasures`: that a person is to be forgotten, or has been. It is written before anything is destroyed, and
 * stays: while it is there, nothing is sealed for the person any more.
 */
export type ErasureDocument = {
  /** The person, such as "customer-1". */
  readonly _id: string;
  /** By the database's clock. */
  readonly requested_at: Date;
  /** When it was last made open, by the database's clock: by this other processes find it. */
  readonly changed_at: Date;
  readonly requested_by: { readonly role: number; readonly subject: string };
  readonly door: number;
  readonly address?: string;
  readonly certificate_name?: string;
  readonly request_id: string;
  readonly correlation_id: string;
  /** The keys that there were; recorded before they are destroyed. */
  readonly key_ids: readonly Binary[];
  /** What was held in the clear, by collection; recorded before it is removed. */
  readonly places: Readonly<Record<string, number>>;
  /** Absent until all is done. */
  readonly done_at?: Date;
  readonly orders?: number;
  /** Where in the log it is said. */
  readonly position?: Long | number;
};

/** The `erasures` collection. Every change is durable on a majority. */
export function erasuresOf(db: Db): Collection<ErasureDocument> {
  return db.collection<ErasureDocument>("erasures", {
    readPreference: "primary",
    writeConcern: { w: "majority", journal: true },
    timeoutMS: ROUND_TRIP_MS,
  });
}
