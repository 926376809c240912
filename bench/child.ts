import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** A process of the benchmark's own, which does one task at a time. */
export type Child<Task, Answer> = AsyncDisposable & {
  readonly pid: number;
  /** Has the task done. Rejects with what went wrong in the child, or when the child ends before it answers. */
  ask(task: Task): Promise<Answer>;
};

/** What a child does, once it is ready. */
export type Work<Task, Answer> = { readonly answer: (task: Task) => Promise<Answer>; readonly close: () => Promise<unknown> };

type Message<Answer> = { readonly ready: true } | { readonly answer: Answer } | { readonly error: string };

/** What `npm start` gives Node, too; the same for every contender. */
const NODE_FLAGS = ["--max-semi-space-size=16"];
/** How long a child may take to let go of what it holds. */
const CLOSE_TIMEOUT_MS = 20_000;

/**
 * Starts a script of this folder, such as "children/append.ts", with what it must know, and returns when it is ready.
 * It ends when it is disposed of, or when this process ends, in whatever way.
 */
export async function startChild<Task, Answer>(script: string, knowledge: unknown): Promise<Child<Task, Answer>> {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const child = fork(path, [JSON.stringify(knowledge)], { stdio: ["ignore", "ignore", "inherit", "ipc"], execArgv: NODE_FLAGS });
  const ended = once(child, "exit");

  async function nextMessage(): Promise<Message<Answer>> {
    const { promise, resolve, reject } = Promise.withResolvers<Message<Answer>>();
    const gone = () => reject(new Error(`${script} ended with ${child.signalCode ?? `code ${child.exitCode}`} before it had answered`));
    child.once("message", resolve as (message: unknown) => void).once("exit", gone);
    return await promise.finally(() => child.off("message", resolve).off("exit", gone));
  }

  const readiness = await nextMessage();
  if ("error" in readiness) throw new Error(`${script}: ${readiness.error}`);
  return {
    pid: child.pid as number,
    async ask(task) {
      const answered = nextMessage();
      child.send({ task });
      const message = await answered;
      if ("answer" in message) return message.answer;
      throw new Error(`${script}: ${"error" in message ? message.error : "is ready twice"}`);
    },
    async [Symbol.asyncDispose]() {
      if (child.connected) child.disconnect();
      if (child.exitCode === null && child.signalCode === null) await ended;
    },
  };
}

/** The child's side: makes ready with what the parent says it must know, then does one task after the other until the parent is gone. */
export async function serveParent<Knowledge, Task, Answer>(prepare: (knowledge: Knowledge) => Promise<Work<Task, Answer>>): Promise<void> {
  const tell = (message: Message<Answer>) => process.send?.(message);
  const orphaned = once(process, "disconnect");
  try {
    const work = await prepare(JSON.parse(process.argv[2] ?? "null") as Knowledge);
    process.on("message", ({ task }: { task: Task }) => {
      void work.answer(task).then(
        (answer) => tell({ answer }),
        (error: unknown) => tell({ error: describe(error) }),
      );
    });
    tell({ ready: true });
    await orphaned;
    setTimeout(() => process.exit(1), CLOSE_TIMEOUT_MS);
    await work.close();
    process.exit(0);
  } catch (error) {
    process.send?.({ error: describe(error) }, () => process.exit(1));
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
