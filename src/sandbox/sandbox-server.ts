import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { DeliveryEngine, Stage } from "./delivery-engine.ts";
import { STAGES } from "./delivery-engine.ts";
import type { Outbox } from "./outbox.ts";
import type { WebhookFault, WebhookSender } from "./webhook-sender.ts";

/** What an API of the sandbox is asked. */
export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly authorization: string;
  /** The body: JSON, or a form's fields. Undefined when it is neither. */
  readonly body: Readonly<Record<string, unknown>> | undefined;
};

/** A body that is text is sent as a page of HTML, and one that is undefined is none; any other is JSON. */
export type Answered = { readonly status: number; readonly body: unknown; readonly headers?: Readonly<Record<string, string>> };

/** One provider's API, in its own wire format. */
export type SandboxApi = {
  /** Which operation a request is, for faults; undefined for none. */
  operationOf(asked: Asked): string | undefined;
  answer(asked: Asked): Answered;
  /** The provider's body of an error that is injected, of the code that was asked for. */
  fault(status: number, code?: number | string): unknown;
  /** The headers of such an answer, in place of a Retry-After. */
  faultHeaders?(status: number, retryAfter: string): Readonly<Record<string, string>>;
  /** Answers what is asked under /__sandbox/ that is this provider's own; undefined for all else. */
  control?(asked: Asked): Answered | undefined;
  /** The messages that were taken, of providers that send some. */
  readonly outbox?: Outbox;
};

/**
 * What is to go wrong: an answer with this status, and the provider's `code` and a Retry-After where that matters; no answer; a cut
 * connection; a slow answer; one that is no JSON; the deed without an answer, or with one that is cut off within.
 */
export type Fault = {
  readonly operation: string;
  readonly fault: number | "timeout" | "reset" | "reset-mid-body" | "slow" | "malformed" | "lose";
  readonly times: number;
  readonly code?: number | string;
  /** Seconds, or a date; 1 if absent, and the status is 429. */
  readonly retryAfter?: string;
};

export type SandboxServer = { readonly url: string; stop(): Promise<void> };

const SLOW_MS = 1500;
const MAX_BODY_BYTES = 1024 * 1024;

/**
 * Serves a provider's API, and under /__sandbox/ what moves it: GET deliveries, POST deliveries/<id>/advance {to, reason},
 * POST faults {operation, fault, times, code, retryAfter}, POST webhook-faults {fault, times}, GET and DELETE outbox.
 */
export async function startSandboxServer(
  api: SandboxApi,
  engine: DeliveryEngine | undefined,
  webhooks: WebhookSender | undefined,
  port = 0,
): Promise<SandboxServer> {
  let faults: (Omit<Fault, "times"> & { left: number })[] = [];

  function faultOf(operation: string | undefined): Omit<Fault, "times"> | undefined {
    const found = faults.find((each) => each.left > 0 && (each.operation === operation || each.operation === "any"));
    if (found) found.left--;
    return found;
  }

  function control(asked: Asked): Answered {
    const { method, path, body = {} } = asked;
    const [, , what, id, action] = path.split("/");
    const own = api.control?.(asked);
    if (own) return own;
    if (method === "GET" && what === "outbox" && api.outbox) return { status: 200, body: api.outbox.all() };
    if (method === "DELETE" && what === "outbox" && api.outbox) {
      api.outbox.clear();
      return { status: 200, body: {} };
    }
    if (method === "GET" && what === "deliveries" && engine) return { status: 200, body: engine.all() };
    if (method === "POST" && what === "faults") {
      const { operation, fault, times = 1, ...more } = body as Partial<Fault>;
      if (operation === undefined || fault === undefined) return { status: 400, body: { error: "operation and fault are needed" } };
      faults.push({ operation, fault, ...more, left: times });
      return { status: 200, body: {} };
    }
    if (method === "DELETE" && what === "faults") {
      faults = [];
      return { status: 200, body: {} };
    }
    if (method === "POST" && what === "webhook-faults" && webhooks) {
      webhooks.fail((body as { fault: WebhookFault }).fault, (body as { times?: number }).times ?? 1);
      return { status: 200, body: {} };
    }
    if (method === "POST" && what === "deliveries" && action === "advance" && engine) {
      const delivery = engine.find(id ?? "") ?? engine.findByKey(id ?? "");
      const { to, reason } = body as { to?: Stage; reason?: string };
      if (!delivery || !to || !STAGES.includes(to)) return { status: 404, body: { error: "no such delivery, or no such stage" } };
      engine.advance(delivery, to, reason);
      return { status: 200, body: delivery };
    }
    return { status: 404, body: { error: "no such control" } };
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://sandbox");
    const asked: Asked = {
      method: request.method ?? "GET",
      path: pathname,
      query: searchParams,
      authorization: request.headers.authorization ?? "",
      body: await readBody(request),
    };
    if (asked.path.startsWith("/__sandbox/")) return send(response, control(asked));
    const { fault, code, retryAfter = "1" } = faultOf(api.operationOf(asked)) ?? {};
    if (fault === "timeout") return;
    if (fault === "reset") {
      request.socket.destroy();
      return;
    }
    if (fault === "slow") await new Promise((resolve) => setTimeout(resolve, SLOW_MS));
    if (fault === "malformed") {
      response.writeHead(200, { "content-type": "text/html" }).end("<html>not what you wanted</html>");
      return;
    }
    if (typeof fault === "number") {
      const usual = fault === 429 || retryAfter !== "1" ? { "retry-after": retryAfter } : {};
      const headers = api.faultHeaders?.(fault, retryAfter) ?? usual;
      send(response, { status: fault, body: api.fault(fault, code), headers });
      return;
    }
    const answer = api.answer(asked);
    if (fault === "lose") return;
    if (fault === "reset-mid-body") {
      const text = JSON.stringify(answer.body ?? {});
      response.writeHead(answer.status, { "content-type": "application/json", ...answer.headers, "content-length": text.length + 1 });
      response.write(text.slice(0, -1), () => request.socket.destroy());
      return;
    }
    send(response, answer);
  }

  const server = createServer((request, response) => {
    serve(request, response).catch(() => response.destroy());
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      engine?.stop();
      await webhooks?.stop();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function send(response: ServerResponse, { status, body, headers = {} }: Answered): void {
  const isPage = typeof body === "string";
  const type = isPage ? "text/html" : "application/json";
  response.writeHead(status, { "content-type": type, ...headers }).end(isPage ? body : JSON.stringify(body));
}

async function readBody(request: IncomingMessage): Promise<Readonly<Record<string, unknown>> | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString();
  if (request.headers["content-type"]?.startsWith("application/x-www-form-urlencoded"))
    return Object.fromEntries(new URLSearchParams(text));
  try {
    const read: unknown = text === "" ? {} : JSON.parse(text);
    return typeof read === "object" && read !== null ? { ...read } : undefined;
  } catch {
    return undefined;
  }
}
