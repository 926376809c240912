import { Valkey } from "iovalkey";
import { startValkeyServer, type ValkeyServer } from "../../src/embedded/valkey-server.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** A Valkey of a test's own, to be treated badly. */
export type TestValkey = AsyncDisposable & {
  readonly url: string;
  /** Ends it without warning: what it holds is lost. */
  kill(): Promise<void>;
  /** Starts it again where it was, once killed. */
  restart(): Promise<void>;
  /** Freezes it: connections stay open, and nothing answers. */
  pause(): void;
  resume(): void;
  /** Carries out a command by a connection of its own. */
  command(name: string, ...args: string[]): Promise<unknown>;
};

/** Starts a Valkey; it is killed, and its folder removed, at the end of the `await using` block. */
export async function startTestValkey(): Promise<TestValkey> {
  const folder = await temporaryFolder();
  const start = (port?: number) => startValkeyServer({ dataDir: folder.path, ...(port !== undefined && { port }) });
  let server: ValkeyServer = await start();
  const { url, port } = server;
  return {
    url,
    kill: () => server.kill(),
    async restart() {
      server = await start(port);
    },
    pause: () => void process.kill(server.pid, "SIGSTOP"),
    resume: () => void process.kill(server.pid, "SIGCONT"),
    async command(name, ...args) {
      const client = new Valkey(url);
      try {
        return await client.call(name, ...args);
      } finally {
        client.disconnect();
      }
    },
    async [Symbol.asyncDispose]() {
      await server.kill();
      await folder[Symbol.asyncDispose]();
    },
  };
}
