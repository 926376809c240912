/**
 * What `open` gives; the next value is fetched while the consumer is busy with the last. Errors are thrown in their turn.
 * `open` gets a signal of its own, so that a fetch that would take for ever does not outlive a consumer that leaves.
 */
export async function* readAhead<Value>(
  open: (signal: AbortSignal) => AsyncIterable<Value>,
  signal: AbortSignal,
): AsyncGenerator<Value, void, undefined> {
  const left = new AbortController();
  const iterator = open(AbortSignal.any([signal, left.signal]))[Symbol.asyncIterator]();
  const fetch = () => {
    const fetched = iterator.next();
    // It is awaited below, but perhaps not before it fails; without this the process would call it unhandled.
    fetched.catch(() => undefined);
    return fetched;
  };
  try {
    let fetched = fetch();
    for (;;) {
      const result = await fetched;
      if (result.done) return;
      fetched = fetch();
      yield result.value;
    }
  } finally {
    left.abort();
    await iterator.return?.();
  }
}
