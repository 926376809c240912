import type { IncomingMessage, ServerResponse } from "node:http";
import type { DescMethod, DescMethodServerStreaming, DescMethodUnary, Message } from "@bufbuild/protobuf";
import {
  ConnectError,
  type ContextValues,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { Refusal } from "../domain/refusal.ts";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { whenAborted } from "./deadline.ts";
import type { Dispatcher, Incoming } from "./dispatch.ts";
import { errorDetails, toCallFailure } from "./errors.ts";

export type ConnectDoorOptions = {
  readonly dispatcher: Dispatcher;
  /** Larger messages are refused with RESOURCE_EXHAUSTED. */
  readonly maxRequestBytes: number;
  /** A larger answer becomes RESOURCE_EXHAUSTED. */
  readonly maxResponseBytes: number;
  /** Streams end with its reason when it aborts. */
  readonly stopping: AbortSignal;
};

/** Connect, gRPC-Web and gRPC as HTTP/1.1 can carry it. */
export type ConnectDoor = {
  /**
   * Answers the request if it is for an RPC's path, in the protocol that its content type names, and says whether it
   * was. Throws a Refusal for an HTTP method or content type of none of them, and what the connection fails with.
   */
  handle(target: ConnectTarget, request: IncomingMessage, response: ServerResponse): Promise<boolean>;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
};

/** What a request is for. */
export type ConnectTarget = { readonly path: string; readonly traceId: string };

const TRACE_ID = createContextKey("", { description: "trace id" });
const PEER = createContextKey("", { description: "address of the caller" });

/** The dispatcher's services as Connect, gRPC-Web and gRPC serve them. */
export function createConnectDoor({ dispatcher, maxRequestBytes, maxResponseBytes, stopping }: ConnectDoorOptions): ConnectDoor {
  const router = createConnectRouter({
    acceptCompression: [compressionGzip, compressionBrotli],
    readMaxBytes: maxRequestBytes,
    writeMaxBytes: maxResponseBytes,
    jsonOptions: { ignoreUnknownFields: false },
  });
  for (const { methods } of dispatcher.services) {
    for (const method of methods) {
      if (isUnary(method)) router.rpc(method, (message, context) => answerUnary(dispatcher, method, message, context));
      else if (isServerStreaming(method))
        router.rpc(method, (message, context) => answerStream(dispatcher, method, message, context, stopping));
      else throw new Error(`${method.parent.typeName}/${method.name}: ${method.methodKind} methods are not supported on this door`);
    }
  }
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  return {
    async handle({ path, traceId }, request, response) {
      const handler = handlers.get(path);
      if (!handler) return false;
      checkProtocol(handler, request);
      const contextValues = createContextValues()
        .set(TRACE_ID, traceId)
        .set(PEER, request.socket.remoteAddress ?? "");
      await universalResponseToNodeResponse(await handler(universalRequestOf(request, response, contextValues)), response);
      return true;
    },
    methodsOf: (path) => handlers.get(path)?.allowedMethods ?? [],
  };
}

function isUnary(method: DescMethod): method is DescMethodUnary {
  return method.methodKind === "unary";
}

function isServerStreaming(method: DescMethod): method is DescMethodServerStreaming {
  return method.methodKind === "server_streaming";
}

async function answerUnary(dispatcher: Dispatcher, method: DescMethod, message: Message, context: HandlerContext): Promise<Message> {
  const incoming = incomingOf(context, context.signal);
  try {
    return await dispatcher.unary(method, () => ({ message }), incoming);
  } catch (thrown) {
    throw toConnectError(thrown, incoming);
  }
}

async function* answerStream(
  dispatcher: Dispatcher,
  method: DescMethod,
  message: Message,
  context: HandlerContext,
  stopping: AbortSignal,
): AsyncGenerator<Message> {
  const incoming = incomingOf(context, AbortSignal.any([context.signal, stopping]));
  try {
    yield* dispatcher.stream(method, () => ({ message }), incoming);
  } catch (thrown) {
    throw toConnectError(thrown, incoming);
  }
}

function incomingOf({ requestHeader, timeoutMs, values }: HandlerContext, signal: AbortSignal): Incoming {
  return {
    door: Door.CONNECT,
    authorization: requestHeader.get("authorization") ?? undefined,
    traceId: values.get(TRACE_ID),
    whenEnded: whenAborted(signal),
    timeoutMs: timeoutMs(),
    peer: values.get(PEER),
  };
}

function toConnectError(thrown: unknown, { traceId }: Incoming): ConnectError {
  const failure = toCallFailure(thrown, traceId);
  const { message, shape, retryAfterSeconds } = failure;
  const headers = retryAfterSeconds === undefined ? undefined : { "retry-after": String(retryAfterSeconds) };
  return new ConnectError(message, shape.code, headers, errorDetails(failure), failure);
}

function checkProtocol({ allowedMethods, supportedContentType }: UniversalHandler, { method = "", headers }: IncomingMessage): void {
  if (!allowedMethods.includes(method))
    throw new Refusal("METHOD_NOT_ALLOWED", `${method} is not for this path; use ${allowedMethods.join(" or ")}`, {
      allow: allowedMethods.join(", "),
    });
  const contentType = headers["content-type"] ?? "";
  if (method === "POST" && !supportedContentType(contentType)) {
    throw new Refusal(
      "UNSUPPORTED_MEDIA_TYPE",
      "the content type is of no protocol that this RPC speaks; send application/json for Connect",
    );
  }
}

/** The library throws on a Host header that makes no address. */
function universalRequestOf(request: IncomingMessage, response: ServerResponse, contextValues: ContextValues) {
  try {
    return universalRequestFromNodeRequest(request, response, undefined, contextValues);
  } catch {
    throw new Refusal("MALFORMED_REQUEST", "the Host header or the address makes no URL");
  }
}
