/** Runs one task at a time, in the order in which they were given. A task that fails does not hold up the next. */
export type Turns = <Result>(task: () => Promise<Result>) => Promise<Result>;

export function createTurns(): Turns {
  let last: Promise<unknown> = Promise.resolve();
  return (task) => {
    const mine = last.then(task);
    last = mine.catch(() => undefined);
    return mine;
  };
}
