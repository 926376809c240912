import { createGathering } from "./gathering.ts";

const MAX_GATHER_MS = 2;

/**
 * Makes one look-up of many keys out of many look-ups of one: one batch is away at a time, and a key that is asked for
 * meanwhile goes with the next, so that its answer is never older than the question. A failure fails all of its batch.
 */
export function batched<Key, Value>(lookUp: (keys: readonly Key[]) => Promise<readonly Value[]>): (key: Key) => Promise<Value> {
  type Question = { readonly key: Key; readonly resolve: (value: Value) => void; readonly reject: (error: unknown) => void };
  const gathering = createGathering();
  let waiting: Question[] = [];
  let running = false;

  async function run(): Promise<void> {
    running = true;
    // Questions of the same turn share the first batch.
    await Promise.resolve();
    while (waiting.length > 0) {
      await gathering.untilUsual(() => waiting.length, MAX_GATHER_MS);
      const batch = waiting;
      waiting = [];
      try {
        const values = await lookUp(batch.map(({ key }) => key));
        batch.forEach(({ resolve }, index) => {
          resolve(values[index] as Value);
        });
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    running = false;
  }

  return (key) =>
    new Promise((resolve, reject) => {
      waiting.push({ key, resolve, reject });
      gathering.arrived(waiting.length);
      if (!running) void run();
    });
}
