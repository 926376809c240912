import { Refusal } from "../domain/refusal.ts";

/** A call's signal, which ends with what ends it: the deadline, or the signal of its door. */
export type CallScope = Disposable & {
  /** Aborts with a Refusal DEADLINE_EXCEEDED, or with the reason of the door's signal. */
  readonly signal: AbortSignal;
  /** Settles as `work` does, or rejects with the signal's reason as soon as it aborts, whether or not the work heeds it. */
  race<Result>(work: Promise<Result>): Promise<Result>;
};

/** Opens a scope that ends at `deadline` (never, if absent) or when `outer` aborts. Disposing of it ends the watch, not the work. */
export function openScope(outer: AbortSignal, deadline: Date | undefined, now: Date): CallScope {
  const controller = new AbortController();
  const { signal } = controller;
  const leave = () => controller.abort(outer.reason);
  if (outer.aborted) leave();
  else outer.addEventListener("abort", leave, { once: true });
  const timer = deadline && setTimeout(() => controller.abort(deadlineExceeded()), Math.max(0, deadline.getTime() - now.getTime()));

  return {
    signal,
    race: (work) =>
      new Promise((resolve, reject) => {
        const giveUp = () => reject(signal.reason);
        if (signal.aborted) giveUp();
        else signal.addEventListener("abort", giveUp, { once: true });
        work.then(resolve, reject);
      }),
    [Symbol.dispose]() {
      clearTimeout(timer);
      outer.removeEventListener("abort", leave);
    },
  };
}

function deadlineExceeded(): Refusal {
  return new Refusal("DEADLINE_EXCEEDED", "the deadline passed before the answer was there: a command may have been carried out all the same, so send it again with the same request_id");
}
