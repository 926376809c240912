import { randomUUID } from "node:crypto";
import type { BlockList } from "node:net";
import { create, type DescMethod, type DescService, type Message } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { Logger } from "pino";
import type { CallLimits } from "../access/call-limits.ts";
import { type Denials, isDenial } from "../access/denials.ts";
import { checkMethod, isPublic } from "../access/permissions.ts";
import type { Caller } from "../domain/caller.ts";
import { loggedPeer } from "../domain/peer.ts";
import { Refusal } from "../domain/refusal.ts";
import { Door, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { AnyHandler, Call, Checked, ServedService } from "../services/call.ts";
import { bearerToken } from "./bearer-token.ts";
import { CALLER_LEFT, type CallScope, openScope, type WhenEnded } from "./deadline.ts";
import { CallFailure, toCallFailure } from "./errors.ts";
import { peerBehind } from "./proxies.ts";
import { createRequestChecker, type Decoded } from "./request-checker.ts";

/** The header that identifies a call, in requests and answers. */
export const REQUEST_ID_HEADER = "x-request-id";

/** What a door knows of a call besides the request. */
export type Incoming = {
  readonly door: Door;
  /** The Authorization header. */
  readonly authorization?: string | undefined;
  /** Identifies the call in logs, events and answers; made by `traceIdOf`. */
  readonly traceId: string;
  /** Tells when the caller leaves or the server shuts down, with what the call is to fail with. */
  readonly whenEnded: WhenEnded;
  /** For how long the caller waits for the answer, if they said. */
  readonly timeoutMs?: number | undefined;
  /** The other end of the connection, as `peerText` has it. */
  readonly peer: string;
  /** The X-Forwarded-For header. */
  readonly forwardedFor?: string | undefined;
};

/** What tells where a call comes from, and by which door. */
type Whence = Pick<Incoming, "door" | "traceId" | "peer" | "forwardedFor">;

/** Reads the request; what it throws refuses the call. */
export type ReadRequest = () => Decoded | Promise<Decoded>;

export type DispatcherOptions = {
  readonly services: readonly ServedService[];
  /** Throws a Refusal UNAUTHENTICATED for a token that does not verify. */
  readonly verifyToken: (token: string) => Promise<Caller>;
  readonly denials: Pick<Denials, "record">;
  /** How often callers who are known may call; absent, as often as they like. */
  readonly callLimits?: CallLimits;
  /** What these say of where a call comes from is believed. */
  readonly trustedProxies: BlockList;
  readonly logger: Logger;
  readonly clock: () => Date;
  /** How long a unary call may take whose caller sets no deadline. */
  readonly defaultDeadlineMs: number;
  /** How long a unary call may take at most, whatever its caller says. */
  readonly maxDeadlineMs: number;
  /** Aborts when the process is asked to end; its reason is what a call is told that waits for something to happen. */
  readonly stopping: AbortSignal;
};

/**
 * Carries out calls, whichever door they came by: authenticates the caller, asks whether the method is open to them, and
 * whether they call too often, reads and checks the request, and calls the handler. The request is read only for a caller who may call the method.
 * Everything thrown is a CallFailure, and is logged.
 */
export type Dispatcher = {
  readonly services: readonly DescService[];
  unary(method: DescMethod, read: ReadRequest, incoming: Incoming): Promise<Message>;
  /** Ends by throwing when the caller leaves, the deadline passes or the server shuts down; never as if it were complete. */
  stream(method: DescMethod, read: ReadRequest, incoming: Incoming): AsyncGenerator<Message, void, undefined>;
  /** As `stream`, of a method that takes a stream of requests, too; each item is what has come since the one before was taken. */
  exchange(method: DescMethod, requests: AsyncIterable<readonly Message[]>, incoming: Incoming): AsyncGenerator<Message, void, undefined>;
  /** The caller of an HTTP path that is no RPC, named in the permission table as "GET /path", if it is open to them. */
  authorize(path: string, incoming: Whence & Pick<Incoming, "authorization">): Promise<Caller>;
  /** What to throw at somebody unknown whom such a path refuses; a denial is recorded. */
  refuse(path: string, refusal: Refusal, incoming: Whence): CallFailure;
};

type Endpoint = { readonly name: string; readonly isPublic: boolean; readonly handler: AnyHandler };

/** What is found out about a call on the way, for what is told of its failure. */
type Findings = { caller?: Caller; about: About };

/** What is read at a pace of its reader's own, which tells nothing of how often they call. */
const METRICS = "GET /metrics";

/** Who calls a method that is open to anybody. */
const ANYBODY: Caller = { role: Role.UNSPECIFIED, subject: "" };

/** The dispatcher of these services. Throws if a service lacks a handler. */
export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { verifyToken, denials, callLimits, trustedProxies, logger, clock, defaultDeadlineMs, maxDeadlineMs, stopping } = options;
  const services = options.services.map(({ desc }) => desc);
  const endpoints = endpointsOf(options.services);
  const checker = createRequestChecker(services, clock);

  const peerOf = ({ peer, forwardedFor }: Whence) => peerBehind(trustedProxies, peer, forwardedFor);

  async function identify(name: string, authorization: string | undefined, findings: Findings): Promise<Caller> {
    const caller = await verifyToken(bearerToken(authorization));
    findings.caller = caller;
    checkMethod(caller, name);
    const counting = name === METRICS ? undefined : callLimits?.count(caller);
    if (counting !== undefined) await counting;
    return caller;
  }

  /** The caller and the request, once both are found good. */
  async function admit(
    endpoint: Endpoint,
    method: DescMethod,
    read: ReadRequest,
    authorization: string | undefined,
    findings: Findings,
  ): Promise<{ caller: Caller; request: Message }> {
    const caller = endpoint.isPublic ? ANYBODY : await identify(endpoint.name, authorization, findings);
    const request = checker.check(method, await read());
    findings.about = aboutOf(request);
    return { caller, request };
  }

  /** What the caller is told of a failure. What was denied is recorded, and those who are denied too often are told to wait. */
  function settle(name: string, failure: CallFailure, caller: Caller | undefined, incoming: Whence): CallFailure {
    const { reason } = failure;
    if (!isDenial(reason, caller)) return failure;
    const { door, traceId } = incoming;
    const waitSeconds = denials.record({ method: name, door, reason, caller, peer: peerOf(incoming), traceId });
    // Who is told to wait already is not told of a shorter time.
    const told = reason === "RATE_LIMITED" ? (failure.retryAfterSeconds ?? 0) : 0;
    if (waitSeconds <= told) return failure;
    return new CallFailure("RATE_LIMITED", `too many calls were denied: wait ${waitSeconds} seconds`, {
      metadata: { retry_after_seconds: String(waitSeconds) },
    });
  }

  function callOf(caller: Caller, endpoint: Endpoint, incoming: Incoming, signal: AbortSignal, deadline: Date | undefined): Call {
    const { door, traceId, authorization } = incoming;
    const { name } = endpoint;
    return {
      caller,
      door,
      // Few handlers ask, and reading a certificate takes time.
      get peer() {
        return peerOf(incoming);
      },
      traceId,
      signal,
      stopping,
      ...(deadline && { deadline }),
      reauthenticate: async () => {
        if (!endpoint.isPublic) await verifyToken(bearerToken(authorization));
      },
      recordDenial: (refusal) => {
        const failure = settle(name, toCallFailure(refusal, traceId), caller, incoming);
        if (failure.reason !== refusal.reason) throw failure;
      },
      // A child logger would cost more than the rest of the call's own work.
      log: (what, message) => logger.info({ trace_id: traceId, method: name, ...what }, message),
    };
  }

  function report(endpoint: Endpoint, incoming: Incoming, findings: Findings, startedAt: Date, failure: CallFailure | undefined): void {
    const level = failure ? levelOf(failure) : "debug";
    if (!logger.isLevelEnabled(level)) return;
    const line = {
      trace_id: incoming.traceId,
      method: endpoint.name,
      door: Door[incoming.door],
      ...loggedPeer(peerOf(incoming), findings.caller),
      ...findings.about,
      duration_ms: clock().getTime() - startedAt.getTime(),
      code: failure?.reason ?? "OK",
      ...(failure?.cause !== undefined && { err: failure.cause }),
    };
    logger[level](line, failure ? `call failed: ${failure.message}` : "call answered");
  }

  function endpointOf(method: DescMethod): Endpoint {
    const endpoint = endpoints.get(method);
    if (!endpoint) throw new Error(`${method.parent.typeName}/${method.name} is not served here`);
    return endpoint;
  }

  /** Answers a call with a stream, once it has been admitted. */
  async function* answer(
    method: DescMethod,
    incoming: Incoming,
    admitted: (endpoint: Endpoint, findings: Findings) => Promise<{ caller: Caller; request: Parameters<AnyHandler>[0] }>,
  ): AsyncGenerator<Message, void, undefined> {
    const endpoint = endpointOf(method);
    const startedAt = clock();
    const { timeoutMs } = incoming;
    const deadline = timeoutMs === undefined ? undefined : new Date(startedAt.getTime() + timeoutMs);
    using scope = openScope(incoming.whenEnded, timeoutMs, isCommand(method));
    const findings: Findings = { about: {} };
    // What holds when nothing else is found: the reader stops asking for more.
    let failure: CallFailure | undefined = toCallFailure(CALLER_LEFT, incoming.traceId);
    let answered = false;
    try {
      const { caller, request } = await scope.race(admitted(endpoint, findings));
      const answers = endpoint.handler(request, callOf(caller, endpoint, incoming, scope.signal, deadline));
      if (answers instanceof Promise) throw new Error(`the handler of ${endpoint.name} does not stream`);
      for await (const answer of untilAborted(answers, scope)) {
        answered = true;
        yield create(method.output, answer);
      }
      failure = undefined;
    } catch (thrown) {
      const found = failureOf(thrown, scope.signal, incoming.traceId, findings.about.order_id);
      // A token that runs out while its caller is being answered is nobody's attempt at anything.
      failure = answered ? found : settle(endpoint.name, found, findings.caller, incoming);
      throw failure;
    } finally {
      report(endpoint, incoming, findings, startedAt, failure);
    }
  }

  /** Each message with the rules that it breaks. */
  async function* checked(method: DescMethod, requests: AsyncIterable<readonly Message[]>): AsyncGenerator<readonly Checked[]> {
    for await (const messages of requests) {
      yield messages.map((message) => ({ message, violations: checker.violations(method, message) }));
    }
  }

  return {
    services,

    async unary(method, read, incoming) {
      const endpoint = endpointOf(method);
      const startedAt = clock();
      const timeoutMs = Math.min(incoming.timeoutMs ?? defaultDeadlineMs, maxDeadlineMs);
      const deadline = new Date(startedAt.getTime() + timeoutMs);
      using scope = openScope(incoming.whenEnded, timeoutMs, isCommand(method));
      const findings: Findings = { about: {} };
      const answer = async () => {
        const { caller, request } = await admit(endpoint, method, read, incoming.authorization, findings);
        const answering = endpoint.handler(request, callOf(caller, endpoint, incoming, scope.signal, deadline));
        if (!(answering instanceof Promise)) throw new Error(`the handler of ${endpoint.name} streams`);
        return create(method.output, await answering);
      };
      const answering = answer();
      try {
        const output = await scope.race(answering);
        report(endpoint, incoming, findings, startedAt, undefined);
        return output;
      } catch (thrown) {
        if (scope.signal.aborted)
          answering.catch((late: unknown) => logger.debug({ trace_id: incoming.traceId, err: late }, "a call failed after its end"));
        const found = failureOf(thrown, scope.signal, incoming.traceId, findings.about.order_id);
        const failure = settle(endpoint.name, found, findings.caller, incoming);
        report(endpoint, incoming, findings, startedAt, failure);
        throw failure;
      }
    },

    stream: (method, read, incoming) =>
      answer(method, incoming, (endpoint, findings) => admit(endpoint, method, read, incoming.authorization, findings)),

    exchange: (method, requests, incoming) =>
      answer(method, incoming, async (endpoint, findings) => {
        const caller = endpoint.isPublic ? ANYBODY : await identify(endpoint.name, incoming.authorization, findings);
        return { caller, request: checked(method, requests) };
      }),

    async authorize(path, incoming) {
      if (isPublic(path)) return ANYBODY;
      const findings: Findings = { about: {} };
      try {
        return await identify(path, incoming.authorization, findings);
      } catch (thrown) {
        throw settle(path, toCallFailure(thrown, incoming.traceId), findings.caller, incoming);
      }
    },

    refuse: (path, refusal, incoming) => settle(path, toCallFailure(refusal, incoming.traceId), undefined, incoming),
  };
}

/** The caller's own x-request-id, if it is one that may be stored and logged, or a new one. */
export function traceIdOf(requestId: unknown): string {
  return typeof requestId === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(requestId) ? requestId : randomUUID();
}

function endpointsOf(services: readonly ServedService[]): ReadonlyMap<DescMethod, Endpoint> {
  const endpoints = new Map<DescMethod, Endpoint>();
  for (const { desc, handlers } of services) {
    for (const method of desc.methods) {
      const handler = handlers[method.localName];
      if (!handler) throw new Error(`${desc.typeName}/${method.name} has no handler`);
      const name = `${desc.typeName}/${method.name}`;
      endpoints.set(method, { name, isPublic: isPublic(name), handler });
    }
  }
  return endpoints;
}

/** What the caller is told. Work that an aborted signal broke off fails in many ways; the signal knows why. */
function failureOf(thrown: unknown, signal: AbortSignal, traceId: string, subject: string | undefined): CallFailure {
  if (!signal.aborted || thrown instanceof Refusal) return toCallFailure(thrown, traceId, subject);
  const ended: unknown = signal.reason;
  // An HTTP request whose connection closes aborts without a reason of its own.
  return toCallFailure(ended instanceof Error && ended.name === "AbortError" ? CALLER_LEFT : ended, traceId, subject);
}

/** What a request is about, for errors and the log, as far as it says so. */
type About = { readonly order_id?: string; readonly request_id?: string };

function aboutOf(request: Message): About {
  const orderId = "orderId" in request ? request.orderId : "";
  const requestId = "requestId" in request ? request.requestId : "";
  return {
    ...(typeof orderId === "string" && orderId !== "" && { order_id: orderId }),
    ...(typeof requestId === "string" && requestId !== "" && { request_id: requestId }),
  };
}

function isCommand({ idempotency }: DescMethod): boolean {
  return idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

function levelOf({ reason }: CallFailure): "debug" | "info" | "warn" | "error" {
  switch (reason) {
    case "INTERNAL":
    case "LOG_DAMAGED":
      return "error";
    case "UNAVAILABLE":
    case "OVERLOADED":
    case "DEADLINE_EXCEEDED":
      return "warn";
    case "CONFLICT":
      return "info";
    default:
      return "debug";
  }
}

/** Passes answers on, but waits for none longer than until the scope ends. */
async function* untilAborted<Item>(items: AsyncIterable<Item>, { race }: CallScope): AsyncGenerator<Item, void, undefined> {
  const iterator = items[Symbol.asyncIterator]();
  let finished = false;
  try {
    for (;;) {
      const next = await race(iterator.next());
      if (next.done) {
        finished = true;
        return;
      }
      yield next.value;
    }
  } finally {
    // A generator that waits for something else than the signal ends when that comes: nobody should wait for it.
    if (!finished) iterator.return?.().catch(() => undefined);
  }
}
