import { AsyncLocalStorage } from "node:async_hooks";
import { type ClientRequest, Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { connect, type Socket } from "node:net";

/** Watches over the HTTP requests that the Firebase library makes. */
export type FcmRequests = {
  /** To be given to the library. */
  readonly agent: HttpAgent;
  /**
   * Runs a call of the library whose requests end, with the error code "STOPPED", when the signal fires. `hasLeft` tells whether any has been
   * made by then.
   */
  during<T>(signal: AbortSignal, call: () => Promise<T>): { readonly result: Promise<T>; hasLeft(): boolean };
  close(): void;
};

type Sending = { readonly signal: AbortSignal; requests: number };
type WithAddRequest = { addRequest(request: ClientRequest, ...more: unknown[]): void };

const KEEP_FREE_MS = 30_000;
const MAX_SOCKETS = 50;

/**
 * By itself the library would repeat up to four times what was answered with 503 or cut off, over a minute or more, and forget about
 * answers that are cut off within. A sending is one attempt that ends in time, so it is told of neither: 503 comes to it as 500, with the
 * same body and headers, and a cut connection under a code that it does not know. `baseUrl` leads all requests to a plain HTTP server.
 */
export function createFcmRequests(baseUrl: string | undefined): FcmRequests {
  const sendings = new AsyncLocalStorage<Sending>();
  const options = { keepAlive: true, maxSockets: MAX_SOCKETS, timeout: KEEP_FREE_MS };
  const agent = baseUrl === undefined ? new HttpsAgent(options) : plainAgent(baseUrl, options);
  const inner = agent as unknown as WithAddRequest;
  const add = inner.addRequest.bind(agent);
  inner.addRequest = (request, ...more) => {
    const sending = sendings.getStore();
    if (sending) watch(request, sending);
    add(request, ...more);
  };
  return {
    agent,
    during(signal, call) {
      const sending: Sending = { signal, requests: 0 };
      return { result: sendings.run(sending, call), hasLeft: () => sending.requests > 0 };
    },
    close: () => agent.destroy(),
  };
}

function watch(request: ClientRequest, sending: Sending): void {
  const { signal } = sending;
  const stop = () => void request.destroy(withCode("STOPPED"));
  if (signal.aborted) {
    stop();
    return;
  }
  sending.requests++;
  signal.addEventListener("abort", stop, { once: true });
  request.once("close", () => signal.removeEventListener("abort", stop));
  request.prependListener("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "ECONNRESET" || error.code === "ETIMEDOUT") error.code = `CUT_${error.code}`;
  });
  request.prependListener("response", (response) => {
    if (response.statusCode === 503) response.statusCode = 500;
    response.once("error", () => request.emit("error", withCode("CUT_WITHIN")));
  });
}

function withCode(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error("the request was ended"), { code });
}

/** The library sends to an https address, so the agent says that this is what it speaks. */
function plainAgent(baseUrl: string, options: object): HttpAgent {
  const { hostname, port } = new URL(baseUrl);
  class PlainAgent extends HttpAgent {
    readonly protocol = "https:";
    override createConnection(): Socket {
      return connect({ host: hostname, port: Number(port) });
    }
  }
  return new PlainAgent(options);
}
