import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { DeliveryEngine, Stage } from "./delivery-engine.ts";
import { STAGES } from "./delivery-engine.ts";
import type { WebhookFault, WebhookSender } from "./webhook-sender.ts";

/** What an API of the sandbox is asked. */
export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly authorization: string;
  /** The body: JSON, or a form's fields. Undefined when it is neither. */
  readonly body: Readonly<Record<string, unknown>> | undefined;
};

export type Answered = { readonly status: number; readonly body: unknown; readonly headers?: Readonly<Record<string, string>> };

/** One provider's API, in its own wire format. */
export type SandboxApi = {
  /** Which operation a request is, for faults; undefined for none. */
  operationOf(asked: Asked): string | undefined;
  answer(asked: Asked): Answered;
  /** The provider's body of an error that is injected. */
  fault(status: number): unknown;
};

/** What is to go wrong: an answer with this status, no answer, a cut connection, a slow answer, one that is no JSON, or the deed without an answer. */
export type Fault = {
  readonly operation: string;
  readonly fault: number | "timeout" | "reset" | "slow" | "malformed" | "lose";
  readonly times: number;
};

export type SandboxServer = { readonly url: string; stop(): Promise<void> };

const SLOW_MS = 1500;
const MAX_BODY_BYTES = 1024 * 1024;

/**
 * Serves a provider's API, and under /__sandbox/ what moves it: GET deliveries, POST deliveries/<id>/advance {to, reason},
 * POST faults {operation, fault, times}, POST webhook-faults {fault, times}.
 */
export async function startSandboxServer(
  api: SandboxApi,
  engine: DeliveryEngine,
  webhooks: WebhookSender,
  port = 0,
): Promise<SandboxServer> {
  let faults: { readonly operation: string; readonly fault: Fault["fault"]; left: number }[] = [];

  function faultOf(operation: string | undefined): Fault["fault"] | undefined {
    const found = faults.find((each) => each.left > 0 && (each.operation === operation || each.operation === "any"));
    if (found) found.left--;
    return found?.fault;
  }

  function control({ method, path, body = {} }: Asked): Answered {
    const [, , what, id, action] = path.split("/");
    if (method === "GET" && what === "deliveries") return { status: 200, body: engine.all() };
    if (method === "POST" && what === "faults") {
      const { operation, fault, times = 1 } = body as Partial<Fault>;
      if (operation === undefined || fault === undefined) return { status: 400, body: { error: "operation and fault are needed" } };
      faults.push({ operation, fault, left: times });
      return { status: 200, body: {} };
    }
    if (method === "DELETE" && what === "faults") {
      faults = [];
      return { status: 200, body: {} };
    }
    if (method === "POST" && what === "webhook-faults") {
      webhooks.fail((body as { fault: WebhookFault }).fault, (body as { times?: number }).times ?? 1);
      return { status: 200, body: {} };
    }
    if (method === "POST" && what === "deliveries" && action === "advance") {
      const delivery = engine.find(id ?? "") ?? engine.findByKey(id ?? "");
      const { to, reason } = body as { to?: Stage; reason?: string };
      if (!delivery || !to || !STAGES.includes(to)) return { status: 404, body: { error: "no such delivery, or no such stage" } };
      engine.advance(delivery, to, reason);
      return { status: 200, body: delivery };
    }
    return { status: 404, body: { error: "no such control" } };
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked: Asked = {
      method: request.method ?? "GET",
      path: new URL(request.url ?? "/", "http://sandbox").pathname,
      authorization: request.headers.authorization ?? "",
      body: await readBody(request),
    };
    if (asked.path.startsWith("/__sandbox/")) return send(response, control(asked));
    const fault = faultOf(api.operationOf(asked));
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
      send(response, { status: fault, body: api.fault(fault), ...(fault === 429 && { headers: { "retry-after": "1" } }) });
      return;
    }
    const answer = api.answer(asked);
    if (fault === "lose") return;
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
      engine.stop();
      await webhooks.stop();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function send(response: ServerResponse, { status, body, headers = {} }: Answered): void {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
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
