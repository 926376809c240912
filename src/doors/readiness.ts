import type { Logger } from "pino";

/** What the server needs to do its work, each by a name and a check that throws when it cannot be had. */
export type ReadinessChecks = { readonly [name: string]: (signal: AbortSignal) => Promise<unknown> };

/** Whether the server can do its work at this moment. */
export type ReadinessReport = {
  readonly ready: boolean;
  /** "ok", "failed" or "no answer", by the checks' names; also of what the server can do its work without. */
  readonly checks: { readonly [name: string]: string };
};

/** Tells whether the server can do its work. */
export type Readiness = {
  /** Really asks; whoever comes while a check runs shares its answer. Never rejects, and takes a second at most. */
  check(): Promise<ReadinessReport>;
};

const CHECK_TIMEOUT_MS = 1_000;

/** Readiness by these checks. Each change is logged once, with its cause. Of what is only `watched`, a failure is told and does no more. */
export function createReadiness(checks: ReadinessChecks, logger: Logger, watched: ReadinessChecks = {}): Readiness {
  let running: Promise<ReadinessReport> | undefined;
  let wasReady = true;
  const failing = new Set<string>();

  async function run(): Promise<ReadinessReport> {
    const failures: unknown[] = [];
    const results = await Promise.all(
      Object.entries({ ...watched, ...checks }).map(async ([name, check]) => {
        const signal = AbortSignal.timeout(CHECK_TIMEOUT_MS);
        try {
          await Promise.race([check(signal), rejectAt(signal)]);
          if (failing.delete(name)) logger.info({ check: name }, "in order again");
          return [name, "ok"] as const;
        } catch (error) {
          if (Object.hasOwn(checks, name)) failures.push(error);
          else if (!failing.has(name)) {
            failing.add(name);
            logger.warn({ check: name, err: error }, "not in order, though calls are served");
          }
          return [name, signal.aborted ? "no answer" : "failed"] as const;
        }
      }),
    );
    const report = { ready: failures.length === 0, checks: Object.fromEntries(results) };
    if (report.ready !== wasReady) {
      wasReady = report.ready;
      if (report.ready) logger.info({ checks: report.checks }, "ready again");
      else logger.warn({ checks: report.checks, err: failures[0] }, "not ready");
    }
    return report;
  }

  return {
    check() {
      running ??= run().finally(() => {
        running = undefined;
      });
      return running;
    },
  };
}

function rejectAt(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}
