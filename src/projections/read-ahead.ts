/** The same values; the next one is fetched while the consumer is busy with the last. Errors are thrown in their turn. */
export async function* readAhead<Value>(source: AsyncIterable<Value>): AsyncGenerator<Value, void, undefined> {
  const iterator = source[Symbol.asyncIterator]();
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
    await iterator.return?.();
  }
}
