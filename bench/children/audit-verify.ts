import { openCheckpoint } from "../../src/audit/checkpoint.ts";
import { parseVerifierKey } from "../../src/audit/signed-note.ts";
import { logAtUrl } from "../../src/audit/tile-source.ts";
import { verifyTree } from "../../src/audit/verify-tree.ts";
import { serveParent } from "../child.ts";
import type { AuditConnection } from "./audit-app.ts";

/** How a verification went: entries in a second, and the most memory that the process held. */
export type Verification = { readonly perSecond: number; readonly peakMib: number };

const SAMPLE_MS = 20;
const MIB = 1024 * 1024;

/** Verifies a log as `ordertrail audit verify` does: over HTTP, by its key. */
await serveParent<AuditConnection, "verify", Verification>(async ({ http, token, key }) => {
  const log = logAtUrl(new URL("/audit", http), { token: async () => token });
  return {
    async answer() {
      let peakMib = 0;
      const sampling = setInterval(() => {
        peakMib = Math.max(peakMib, process.memoryUsage.rss() / MIB);
      }, SAMPLE_MS);
      const began = performance.now();
      const head = openCheckpoint(await log.checkpoint(), [parseVerifierKey(key)]);
      const verifying = verifyTree(log, { head });
      let last = await verifying.next();
      while (!last.done) last = await verifying.next();
      clearInterval(sampling);
      if (last.value) throw new Error(`position ${last.value.position}: ${last.value.what}`);
      return { perSecond: (head.size * 1000) / (performance.now() - began), peakMib };
    },
    close: async () => undefined,
  };
});
