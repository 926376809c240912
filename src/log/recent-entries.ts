import type { AppendListener } from "./appender.ts";
import type { RecordedEntry } from "./log-entry.ts";

/** The newest entries that this process has appended itself, so that those who follow the log need not read them again. */
export type RecentEntries = {
  /** Entries that come right after a position, without a gap, at most `limit`; none when they are not remembered. */
  after(position: number, limit: number): readonly RecordedEntry[];
};

const MAX_ENTRIES = 4000;
const MAX_BYTES = 8 * 1024 * 1024;

/** Remembers what is appended from now on, up to some thousand entries and some MiB of bodies. */
export function rememberRecent(onAppended: (listener: AppendListener) => () => void): RecentEntries {
  let entries: RecordedEntry[] = [];
  let bytes = 0;

  function forgetOldest(): void {
    let count = Math.max(0, entries.length - MAX_ENTRIES);
    for (let index = 0; index < count || bytes > MAX_BYTES; index++) {
      bytes -= entries[index]?.body.length ?? 0;
      count = Math.max(count, index + 1);
    }
    entries = entries.slice(count);
  }

  onAppended((appended) => {
    const [first] = appended;
    const last = entries.at(-1);
    // Another process has appended in between: what was before is of no use to anybody who has to read that.
    if (first && last && first.position !== last.position + 1) {
      entries = [];
      bytes = 0;
    }
    entries.push(...appended);
    for (const { body } of appended) bytes += body.length;
    if (entries.length > 2 * MAX_ENTRIES || bytes > MAX_BYTES) forgetOldest();
  });

  return {
    after(position, limit) {
      const oldest = entries[0]?.position;
      if (oldest === undefined || position + 1 < oldest) return [];
      return entries.slice(position + 1 - oldest, position + 1 - oldest + limit);
    },
  };
}
