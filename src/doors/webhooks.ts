import type { IncomingMessage, ServerResponse } from "node:http";
import type { Logger } from "pino";
import { checkMethod } from "../access/permissions.ts";
import { type Courier, type CourierReport, WebhookRefused } from "../couriers/courier.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { DeliveryProvider, Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { type Occasion, partnerOf } from "../services/courier-reports.ts";
import type { SeenReports } from "../services/seen-reports.ts";
import type { Dispatcher } from "./dispatch.ts";
import { sendJson } from "./http-answer.ts";
import { readBytes } from "./json-body.ts";
import { peerOf } from "./peer.ts";

export type WebhooksOptions = {
  readonly couriers: ReadonlyMap<DeliveryProvider, Courier>;
  /** When it resolves, all of a report that matters is durable. */
  readonly take: (provider: DeliveryProvider, report: CourierReport, occasion: Occasion, signal: AbortSignal) => Promise<void>;
  readonly seen: SeenReports;
};

/** What the server gives all its doors. */
export type WebhooksSetting = Pick<Dispatcher, "refuse"> & {
  readonly maxRequestBytes: number;
  readonly stopping: AbortSignal;
  readonly logger: Logger;
};

/** Where providers tell how deliveries stand. */
export type Webhooks = {
  /** Answers the request if it is for one of its paths, and says whether it was. Throws a Refusal. */
  handle(target: { readonly path: string; readonly traceId: string }, request: IncomingMessage, response: ServerResponse): Promise<boolean>;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
  /** All of them, as the permission table names them. */
  readonly names: readonly string[];
};

const PATHS: ReadonlyMap<string, DeliveryProvider> = new Map([
  ["/webhooks/uber", DeliveryProvider.UBER],
  ["/webhooks/doordash", DeliveryProvider.DOORDASH],
]);
/** Providers wait some ten seconds and then send again. */
const TIME_LIMIT_MS = 8000;
const MAX_BYTES = 256 * 1024;

/**
 * Serves /webhooks/uber and /webhooks/doordash. A webhook that its provider has not signed is UNAUTHENTICATED, without a
 * detail; one that is understood is answered 200 when what it leads to is durable, and one that leads to nothing, too.
 */
export function createWebhooks(
  { couriers, take, seen }: WebhooksOptions,
  { refuse, maxRequestBytes, stopping, logger }: WebhooksSetting,
): Webhooks {
  const served = new Map(
    [...PATHS].flatMap(([path, provider]) => {
      const courier = couriers.get(provider);
      return courier ? [[path, courier] as const] : [];
    }),
  );

  function read(courier: Courier, name: string, traceId: string, request: IncomingMessage, body: Uint8Array): readonly CourierReport[] {
    const headers = new Map(
      Object.entries(request.headers).map(([header, value]) => [header, Array.isArray(value) ? value.join(", ") : (value ?? "")]),
    );
    try {
      return courier.readWebhook({ headers, body });
    } catch (error) {
      if (!(error instanceof WebhookRefused)) throw error;
      if (error.kind === "forged") {
        const refusal = new Refusal("UNAUTHENTICATED", "this webhook does not show that it is the provider's");
        throw refuse(name, refusal, { door: Door.WEBHOOK, traceId, ...peerOf(request) });
      }
      logger.info({ trace_id: traceId, method: name, kind: error.kind }, `a webhook was refused: ${error.message}`);
      throw new Refusal("MALFORMED_REQUEST", "this webhook cannot be read");
    }
  }

  /** A "no" of the domain ends a report; what is known to pass is for the provider to send again. */
  async function takeOnce(provider: DeliveryProvider, report: CourierReport, occasion: Occasion, signal: AbortSignal): Promise<void> {
    const id = `${DeliveryProvider[provider]}/${report.reportId}`;
    if (await seen.has(id)) return;
    try {
      await take(provider, report, occasion, signal);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.reason === "CONFLICT" || error.reason === "OVERLOADED") throw new Unavailable(error.message, { cause: error });
      logger.info({ trace_id: occasion.correlationId, report_id: report.reportId, reason: error.reason }, "a webhook leads to nothing");
    }
    await seen.add(id);
  }

  return {
    async handle({ path, traceId }, request, response) {
      const courier = served.get(path);
      if (!courier) return false;
      if (request.method !== "POST")
        throw new Refusal("METHOD_NOT_ALLOWED", `${request.method} is not for this path; use POST`, { allow: "POST" });
      const { provider } = courier;
      const name = `POST ${path}`;
      const body = await readBytes(request, Math.min(MAX_BYTES, maxRequestBytes));
      const reports = read(courier, name, traceId, request, body);
      checkMethod({ ...partnerOf(provider), provider }, name);
      const signal = AbortSignal.any([stopping, AbortSignal.timeout(TIME_LIMIT_MS)]);
      const occasion: Occasion = { method: name, door: Door.WEBHOOK, correlationId: traceId };
      for (const report of reports) {
        logger.debug({ trace_id: traceId, method: name, kind: report.kind, report_id: report.reportId }, "a webhook came");
        await takeOnce(provider, report, occasion, signal);
      }
      if (reports.length === 0) logger.info({ trace_id: traceId, method: name }, "a webhook tells nothing that is known here");
      sendJson(response, 200, "{}");
      return true;
    },
    methodsOf: (path) => (served.has(path) ? ["POST"] : []),
    names: [...served.keys()].map((path) => `POST ${path}`),
  };
}
