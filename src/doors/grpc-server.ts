import { once } from "node:events";
import { type DescMethod, type DescService, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type StatusObject,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { Logger } from "pino";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { type Decoded, type Dispatcher, type Incoming, traceIdOf } from "./dispatch.ts";
import { type CallFailure, encodeStatus, toCallFailure } from "./errors.ts";
import { addReflection } from "./grpc-reflection.ts";
import type { Readiness } from "./readiness.ts";

export type GrpcServerOptions = {
  readonly dispatcher: Dispatcher;
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** Larger messages are refused with RESOURCE_EXHAUSTED. */
  readonly maxRequestBytes: number;
  /** How long `stop` waits for calls under way. */
  readonly drainTimeoutMs: number;
  /** What grpc.health.v1 tells. */
  readonly readiness: Readiness;
  readonly logger: Logger;
};

/** The gRPC port, open. */
export type GrpcServer = {
  /** "host:port". */
  readonly address: string;
  /**
   * Takes no more calls, ends streams with UNAVAILABLE and waits for the other calls; what is left after the drain
   * timeout is cut off.
   */
  stop(): Promise<void>;
};

const HEALTH_INTERVAL_MS = 1_000;
const KEEPALIVE_TIME_MS = 60_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;
const REQUEST_ID = "x-request-id";

/** Opens the gRPC port for the dispatcher's services, health and reflection. Throws if the address cannot be had. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { dispatcher, host, port, maxRequestBytes, drainTimeoutMs, readiness, logger } = options;
  const server = new Server({
    "grpc.max_receive_message_length": maxRequestBytes,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
  });
  const stopping = new AbortController();
  for (const service of dispatcher.services) server.addService(definitionOf(service), implementationOf(service, dispatcher, stopping.signal));
  addReflection(server, dispatcher.services);
  const health = new HealthImplementation();
  health.addToServer(server);
  const healthNames = ["", ...dispatcher.services.map(({ typeName }) => typeName)];
  const tellHealth = (status: "SERVING" | "NOT_SERVING") => healthNames.forEach((name) => health.setStatus(name, status));
  const updateHealth = async () => {
    const { ready } = await readiness.check();
    if (!stopping.signal.aborted) tellHealth(ready ? "SERVING" : "NOT_SERVING");
  };
  await updateHealth();

  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host.includes(":") ? `[${host}]` : host}:${port}`, ServerCredentials.createInsecure(), (error, boundPort) => (error ? reject(error) : resolve(boundPort)));
  });
  const healthTimer = setInterval(() => void updateHealth(), HEALTH_INTERVAL_MS);

  return {
    address: `${host}:${bound}`,
    async stop() {
      clearInterval(healthTimer);
      stopping.abort(new Unavailable("the server is shutting down: try again"));
      tellHealth("NOT_SERVING");
      await new Promise<void>((resolve) => {
        const limit = setTimeout(() => {
          logger.warn({ drain_timeout_ms: drainTimeoutMs }, "calls still under way on the gRPC port are cut off");
          server.forceShutdown();
          resolve();
        }, drainTimeoutMs);
        server.tryShutdown(() => {
          clearTimeout(limit);
          resolve();
        });
      });
    },
  };
}

/** The service as grpc-js wants it, but with requests as bytes: what does not decode is the caller's mistake, not INTERNAL. */
function definitionOf(service: DescService): ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      {
        path: `/${service.typeName}/${method.name}`,
        requestStream: false,
        responseStream: method.methodKind === "server_streaming",
        requestSerialize: (bytes: Buffer) => bytes,
        requestDeserialize: (bytes: Buffer) => bytes,
        responseSerialize: (message: Message) => asBuffer(toBinary(method.output, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      },
    ]),
  );
}

function implementationOf(service: DescService, dispatcher: Dispatcher, stopping: AbortSignal): UntypedServiceImplementation {
  return Object.fromEntries(
    service.methods.map((method) => {
      switch (method.methodKind) {
        case "unary":
          return [method.localName, unaryHandler(method, dispatcher)];
        case "server_streaming":
          return [method.localName, streamHandler(method, dispatcher, stopping)];
        default:
          throw new Error(`${service.typeName}/${method.name}: ${method.methodKind} methods are not supported on this door`);
      }
    }),
  );
}

function unaryHandler(method: DescMethod, dispatcher: Dispatcher): handleUnaryCall<Buffer, Message> {
  return (call, callback) => {
    const leaving = new AbortController();
    // grpc-js emits this after an answer, too, when nobody listens to the signal any more.
    call.on("cancelled", () => leaving.abort(CALLER_LEFT));
    const incoming = incomingOf(call, leaving.signal);
    dispatcher.unary(method, () => decode(method, call.request), incoming).then(
      (message) => {
        call.sendMetadata(requestIdMetadata(incoming));
        callback(null, message);
      },
      (thrown: unknown) => callback(statusOf(thrown, incoming)),
    );
  };
}

function streamHandler(method: DescMethod, dispatcher: Dispatcher, stopping: AbortSignal): handleServerStreamingCall<Buffer, Message> {
  return (call) => {
    const leaving = new AbortController();
    call.on("cancelled", () => leaving.abort(CALLER_LEFT));
    const incoming = incomingOf(call, AbortSignal.any([leaving.signal, stopping]));
    call.sendMetadata(requestIdMetadata(incoming));
    writeAll(call, dispatcher.stream(method, () => decode(method, call.request), incoming), leaving.signal).then(
      () => call.end(),
      (thrown: unknown) => call.emit("error", statusOf(thrown, incoming)),
    );
  };
}

/** Writes no faster than the caller reads. */
async function writeAll(call: ServerWritableStream<Buffer, Message>, messages: AsyncIterable<Message>, leaving: AbortSignal): Promise<void> {
  for await (const message of messages) {
    if (!call.write(message)) await once(call, "drain", { signal: leaving });
  }
}

const CALLER_LEFT = new Refusal("CANCELLED", "the caller went away");

function incomingOf(call: ServerUnaryCall<Buffer, Message> | ServerWritableStream<Buffer, Message>, signal: AbortSignal): Incoming {
  const { metadata } = call;
  const deadline = call.getDeadline();
  return {
    door: Door.GRPC,
    authorization: textOf(metadata, "authorization"),
    traceId: traceIdOf(textOf(metadata, REQUEST_ID)),
    signal,
    deadline: deadline === Number.POSITIVE_INFINITY ? undefined : new Date(deadline),
    peer: call.getPeer(),
  };
}

function textOf(metadata: Metadata, key: string): string | undefined {
  return metadata.get(key)[0]?.toString();
}

function decode(method: DescMethod, bytes: Buffer): Decoded {
  try {
    return { message: fromBinary(method.input, bytes) };
  } catch {
    throw new Refusal("MALFORMED_REQUEST", `the message is not a ${method.input.typeName}: use the protos that reflection tells`);
  }
}

function requestIdMetadata({ traceId }: Incoming): Metadata {
  const metadata = new Metadata();
  metadata.set(REQUEST_ID, traceId);
  return metadata;
}

function statusOf(thrown: unknown, incoming: Incoming): StatusObject {
  const failure: CallFailure = toCallFailure(thrown, incoming.traceId);
  const metadata = requestIdMetadata(incoming);
  metadata.set("grpc-status-details-bin", asBuffer(encodeStatus(failure)));
  return { code: failure.shape.code.valueOf(), details: failure.message, metadata };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
