import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { DescMethod, DescMethodServerStreaming, DescMethodUnary, JsonObject, Message } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ContextValues,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import { type Compression, createAsyncIterable, type UniversalHandler, type UniversalServerResponse } from "@connectrpc/connect/protocol";
import { errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { Refusal } from "../domain/refusal.ts";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { CALLER_LEFT, timeoutIn, whenAborted } from "./deadline.ts";
import type { Dispatcher, Incoming, ReadRequest } from "./dispatch.ts";
import { CallFailure, errorDetails, toCallFailure } from "./errors.ts";
import { readJsonBody, tooLarge } from "./json-body.ts";
import { readMessage } from "./json-reader.ts";
import { peerOf } from "./peer.ts";
import type { Decoded } from "./request-checker.ts";

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

/** Reads the request in the library's place; set where it would tell less of what is wrong. */
const READ = createContextKey<ReadRequest | undefined>(undefined, { description: "reader of the request" });
const TRACE_ID = createContextKey("", { description: "trace id" });
const WHENCE = createContextKey<ReturnType<typeof peerOf>>(
  { peer: "", forwardedFor: undefined },
  { description: "where the call comes from" },
);

const COMPRESSIONS: readonly Compression[] = [compressionGzip, compressionBrotli];
/** What the library takes for a fault of its own is the caller's mistake. */
const STATUS_OF_MISTAKES: ReadonlyMap<number, number> = new Map([
  [500, 400],
  [501, 415],
]);
/** More than any error takes, with a hundred violations. */
const MAX_ERROR_BYTES = 4 * 1024 * 1024;

/** The dispatcher's services as Connect, gRPC-Web and gRPC serve them. */
export function createConnectDoor({ dispatcher, maxRequestBytes, maxResponseBytes, stopping }: ConnectDoorOptions): ConnectDoor {
  const options = {
    acceptCompression: COMPRESSIONS.map(blamingCaller),
    interceptors: [blameStreamsCaller],
    readMaxBytes: maxRequestBytes,
    writeMaxBytes: maxResponseBytes,
    jsonOptions: { ignoreUnknownFields: false },
  };
  const connect = createConnectRouter({ ...options, grpc: false, grpcWeb: false });
  const grpc = createConnectRouter({ ...options, connect: false });
  for (const { methods } of dispatcher.services) {
    for (const method of methods) {
      if (isUnary(method)) {
        connect.rpc(method, (message, context) => answerUnary(dispatcher, method, message, context));
        grpc.rpc(asStream(method), async function* (message, context) {
          yield await answerUnary(dispatcher, method, message, context);
        });
      } else if (isServerStreaming(method)) {
        for (const router of [connect, grpc])
          router.rpc(method, (message, context) => answerStream(dispatcher, method, message, context, stopping));
      } else {
        // HTTP/1.1 carries no two streams at once.
        for (const router of [connect, grpc])
          router.rpc({ ...method, methodKind: "server_streaming" } as DescMethodServerStreaming, onlyGrpc);
      }
    }
  }
  const connectHandlers = handlersByPath(connect);
  const grpcHandlers = handlersByPath(grpc);

  return {
    async handle({ path, traceId }, request, response) {
      const speaksGrpc = /^application\/grpc/i.test(request.headers["content-type"] ?? "");
      const handler = (speaksGrpc ? grpcHandlers : connectHandlers).get(path);
      if (!handler) return false;
      checkProtocol(handler, request);
      const contextValues = createContextValues().set(TRACE_ID, traceId).set(WHENCE, peerOf(request));
      // The library stops at the first thing that it cannot read, and quotes it, which may be personal.
      const read = readsJson(handler, request) ? () => readJson(handler.method, request, response, maxRequestBytes) : undefined;
      contextValues.set(READ, read);
      const universalRequest = universalRequestOf(request, response, contextValues, read && {});
      const answer = await handler(universalRequest);
      await universalResponseToNodeResponse(await explained(answer, handler.method, request.headers), response);
      return true;
    },
    methodsOf: (path) => connectHandlers.get(path)?.allowedMethods ?? [],
  };
}

// biome-ignore lint/correctness/useYield: it answers with nothing but an error
async function* onlyGrpc(_: Message, { values }: HandlerContext): AsyncGenerator<Message> {
  const refusal = new Refusal(
    "UNIMPLEMENTED",
    "this method takes a stream of requests, which is for the gRPC port; over HTTP there is UpdateLocation",
  );
  throw toConnectError(refusal, { traceId: values.get(TRACE_ID) });
}

function handlersByPath({ handlers }: ConnectRouter): ReadonlyMap<string, UniversalHandler> {
  return new Map(handlers.map((handler) => [handler.requestPath, handler]));
}

function isUnary(method: DescMethod): method is DescMethodUnary {
  return method.methodKind === "unary";
}

function isServerStreaming(method: DescMethod): method is DescMethodServerStreaming {
  return method.methodKind === "server_streaming";
}

/** gRPC carries one answer as it carries many, and only of a stream's request the library lets it be told what is wrong. */
function asStream(method: DescMethodUnary): DescMethodServerStreaming {
  return { ...method, methodKind: "server_streaming" };
}

async function answerUnary(dispatcher: Dispatcher, method: DescMethod, message: Message, context: HandlerContext): Promise<Message> {
  const incoming = incomingOf(context, context.signal);
  try {
    return await dispatcher.unary(method, context.values.get(READ) ?? (() => ({ message })), incoming);
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
    whenEnded: (end) => whenAborted(signal)((reason) => end(isTornOff(reason) ? CALLER_LEFT : reason)),
    timeoutMs: timeoutMs(),
    ...values.get(WHENCE),
  };
}

/** Whether the connection, or the stream on it, has ended in whatever way but by its deadline. */
function isTornOff(reason: unknown): boolean {
  return reason instanceof ConnectError && reason.code !== Code.DeadlineExceeded;
}

function toConnectError(thrown: unknown, { traceId }: Pick<Incoming, "traceId">): ConnectError {
  const failure = toCallFailure(thrown, traceId);
  const { message, shape, retryAfterSeconds } = failure;
  const headers = retryAfterSeconds === undefined ? undefined : { "retry-after": String(retryAfterSeconds) };
  return new ConnectError(message, shape.code, headers, errorDetails(failure), failure);
}

/**
 * The library answers what it cannot read without a reason, quotes it, which may be personal, or calls it a fault of its
 * own. All of that is the caller's mistake, and told like any other. Answers of streams have status 200.
 */
async function explained(
  answer: UniversalServerResponse,
  method: DescMethod,
  headers: IncomingHttpHeaders,
): Promise<UniversalServerResponse> {
  if (answer.status < 400) return answer;
  const chunks: Uint8Array[] = [];
  for await (const chunk of answer.body ?? []) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  const header = new Headers(answer.header);
  const packing = COMPRESSIONS.find(({ name }) => name === header.get("content-encoding"));
  const text = Buffer.from(packing ? await packing.decompress(bytes, MAX_ERROR_BYTES) : bytes).toString();
  const mistake = mistakeIn(answer.status, text, method, headers);
  if (!mistake) return { ...answer, body: createAsyncIterable<Uint8Array>([bytes]) };
  for (const name of ["content-length", "content-encoding"]) header.delete(name);
  header.set("content-type", "application/json");
  const body = errorToJsonBytes(asConnectError(mistake), {});
  return { ...answer, header, status: STATUS_OF_MISTAKES.get(answer.status) ?? answer.status, body: createAsyncIterable([body]) };
}

function mistakeIn(status: number, body: string, method: DescMethod, headers: IncomingHttpHeaders): Refusal | undefined {
  if (body.includes('"details":')) return undefined;
  if (status === 415)
    return new Refusal("UNSUPPORTED_MEDIA_TYPE", "this content type cannot be read here; send application/json for Connect");
  if (status === 501) return new Refusal("UNSUPPORTED_MEDIA_TYPE", "the body must be compressed by gzip or br, or not at all");
  if (status === 500) return body.includes('"message":"parse binary: ') ? noMessage(method) : undefined;
  if (status !== 400) return undefined;
  return mistakeInTimeout(headers) ?? noMessage(method);
}

function mistakeInTimeout(headers: IncomingHttpHeaders): Refusal | undefined {
  try {
    timeoutIn(headers);
    return undefined;
  } catch (refusal) {
    if (refusal instanceof Refusal) return refusal;
    throw refusal;
  }
}

/** The library calls bytes that do not unpack a fault of its own, in most cases. */
function blamingCaller(compression: Compression): Compression {
  return {
    ...compression,
    async decompress(bytes, readMaxBytes) {
      try {
        return await compression.decompress(bytes, readMaxBytes);
      } catch (error) {
        if (error instanceof ConnectError && error.code === Code.ResourceExhausted) throw asConnectError(tooLarge(readMaxBytes));
        throw asConnectError(new Refusal("MALFORMED_REQUEST", `the body does not unpack by ${compression.name}`));
      }
    },
  };
}

/** As `explained`, for streams, whose errors come in an answer with status 200. The library would also quote what it cannot read. */
const blameStreamsCaller: Interceptor = (next) => (request) =>
  next(request.stream ? { ...request, message: blamingOf(request.message, request.method) } : request);

async function* blamingOf<Item>(messages: AsyncIterable<Item>, method: DescMethod): AsyncGenerator<Item, void, undefined> {
  try {
    yield* messages;
  } catch (error) {
    const { code, cause } = ConnectError.from(error);
    if (cause instanceof CallFailure || ![Code.Internal, Code.InvalidArgument].includes(code)) throw error;
    throw asConnectError(noMessage(method));
  }
}

function noMessage({ input }: DescMethod): Refusal {
  return new Refusal("MALFORMED_REQUEST", `the message is not a ${input.typeName}: use the protos that reflection tells`);
}

function asConnectError(refusal: Refusal): ConnectError {
  return toConnectError(refusal, { traceId: "" });
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

/** Whether this is a unary Connect call in JSON, not compressed. */
function readsJson({ method }: UniversalHandler, request: IncomingMessage): boolean {
  const { "content-type": type = "", "content-encoding": encoding = "identity" } = request.headers;
  return isUnary(method) && request.method === "POST" && /^application\/json *(;|$)/i.test(type) && encoding === "identity";
}

async function readJson(method: DescMethod, request: IncomingMessage, response: ServerResponse, maxBytes: number): Promise<Decoded> {
  try {
    return readMessage(method.input, await readJsonBody(request, maxBytes));
  } finally {
    // What is left of a body that is too large is not worth reading.
    if (!request.complete) response.setHeader("connection", "close");
  }
}

/** The library throws on a Host header that makes no address. */
function universalRequestOf(
  request: IncomingMessage,
  response: ServerResponse,
  contextValues: ContextValues,
  parsedJsonBody: JsonObject | undefined,
) {
  try {
    return universalRequestFromNodeRequest(request, response, parsedJsonBody, contextValues);
  } catch {
    throw new Refusal("MALFORMED_REQUEST", "the Host header or the address makes no URL");
  }
}
