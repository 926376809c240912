import type { Db } from "mongodb";

/** Which reports of providers have had their effect, so that a copy that comes much later has none again. */
export type SeenReports = {
  /** Creates the collection's index. */
  ensureIndexes(): Promise<void>;
  has(id: string): Promise<boolean>;
  /** To be called when the report's effect is durable. */
  add(id: string): Promise<void>;
};

/** Providers send again for a day at most. What is older leads to nothing by the table of moves, or to what the provider corrects. */
const KEPT_SECONDS = 3 * 24 * 3600;

/** The reports in the collection `webhook_reports` of `db`. */
export function createSeenReports(db: Db): SeenReports {
  const reports = db.collection<{ readonly _id: string; readonly stored_at: Date }>("webhook_reports");
  return {
    async ensureIndexes() {
      await reports.createIndex({ stored_at: 1 }, { expireAfterSeconds: KEPT_SECONDS });
    },
    async has(id) {
      return (await reports.findOne({ _id: id }, { projection: { _id: 1 } })) !== null;
    },
    async add(id) {
      await reports.updateOne({ _id: id }, { $currentDate: { stored_at: true } }, { upsert: true });
    },
  };
}
