import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { type Channel, type ChannelReport, ChannelWebhookRefused } from "../channels/channel.ts";
import { answerChallenge } from "../channels/whatsapp-webhook.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { ConsentSource } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import type { SeenReports } from "../services/seen-reports.ts";
import { readBytes } from "./json-body.ts";
import { peerOf } from "./peer.ts";
import type { Webhooks, WebhooksSetting } from "./webhooks.ts";

export type ChannelWebhooksOptions = {
  readonly channels: ReadonlyMap<NotificationChannel, Channel>;
  /** When it resolves, all of a report that matters is durable. */
  readonly take: (
    channel: NotificationChannel,
    report: ChannelReport,
    occasion: { readonly method: string; readonly correlationId: string },
  ) => Promise<void>;
  readonly seen: SeenReports;
  /** Where this port is reached from outside: what Twilio signs begins with it. */
  readonly publicUrl: () => string | undefined;
  readonly metaVerifyToken: string | undefined;
  /** What shows that a link to unsubscribe is ours. */
  readonly unsubscribeToken: (customerId: string) => Promise<string>;
  readonly optOut: (customerId: string, channel: NotificationChannel, source: ConsentSource, place: string) => Promise<void>;
};

const PATHS: ReadonlyMap<string, NotificationChannel> = new Map([
  ["/webhooks/sendgrid", NotificationChannel.EMAIL],
  ["/webhooks/twilio", NotificationChannel.SMS],
  ["/webhooks/whatsapp", NotificationChannel.WHATSAPP],
]);
const UNSUBSCRIBE = /^\/unsubscribe\/([A-Za-z0-9_-]{1,64})\/([A-Za-z0-9_-]{22})$/;
const UNSUBSCRIBE_NAMES = ["GET /unsubscribe/{customer_id}/{token}", "POST /unsubscribe/{customer_id}/{token}"];
/** SendGrid's batches come at 768 KB. */
const MAX_BYTES = 1024 * 1024;

/** Serves the callbacks of those who carry messages, and the links by which emails are unsubscribed from. */
export function createChannelWebhooks(options: ChannelWebhooksOptions, { refuse, maxRequestBytes, logger }: WebhooksSetting): Webhooks {
  const { channels, take, seen, publicUrl, metaVerifyToken, unsubscribeToken, optOut } = options;
  const served = new Map(
    [...PATHS].flatMap(([path, channel]) => {
      const found = channels.get(channel);
      return found?.readWebhook ? [[path, found] as const] : [];
    }),
  );
  const methodsOf = (path: string): readonly string[] => {
    if (UNSUBSCRIBE.test(path)) return ["GET", "POST"];
    if (!served.has(path)) return [];
    return path === "/webhooks/whatsapp" ? ["GET", "POST"] : ["POST"];
  };

  async function read(channel: Channel, name: string, traceId: string, request: IncomingMessage): Promise<readonly ChannelReport[]> {
    const headers = new Map(
      Object.entries(request.headers).map(([header, value]) => [header, Array.isArray(value) ? value.join(", ") : (value ?? "")]),
    );
    const body = await readBytes(request, Math.min(MAX_BYTES, maxRequestBytes));
    const base = publicUrl() ?? `http://${request.headers.host ?? ""}`;
    try {
      return channel.readWebhook?.({ method: "POST", url: `${base}${request.url ?? ""}`, headers, body }) ?? [];
    } catch (error) {
      if (!(error instanceof ChannelWebhookRefused)) throw error;
      if (error.kind === "forged")
        throw refuse(name, new Refusal("UNAUTHENTICATED", "this webhook does not show that it is the provider's"), {
          ...{ door: Door.WEBHOOK, traceId, ...peerOf(request) },
        });
      logger.info({ trace_id: traceId, method: name, kind: error.kind }, `a webhook was refused: ${error.message}`);
      throw new Refusal("MALFORMED_REQUEST", "this webhook cannot be read");
    }
  }

  async function takeOnce(channel: Channel, report: ChannelReport, method: string, correlationId: string): Promise<void> {
    const id = `${NotificationChannel[channel.channel]}/${report.reportId}`;
    if (await seen.has(id)) return;
    try {
      await take(channel.channel, report, { method, correlationId });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.reason === "CONFLICT" || error.reason === "OVERLOADED") throw new Unavailable(error.message, { cause: error });
      logger.info({ trace_id: correlationId, report_id: report.reportId, reason: error.reason }, "a webhook leads to nothing");
    }
    await seen.add(id);
  }

  async function unsubscribe([, customerId = "", token = ""]: RegExpExecArray, request: IncomingMessage, response: ServerResponse) {
    if (!isSame(token, await unsubscribeToken(customerId))) throw new Refusal("ROUTE_NOT_FOUND", "this link is not one of ours");
    const method = request.method ?? "";
    if (method === "POST") await optOut(customerId, NotificationChannel.EMAIL, ConsentSource.UNSUBSCRIBE, "email-link");
    else if (method !== "GET") throw new Refusal("METHOD_NOT_ALLOWED", "use GET or POST", { allow: "GET, POST" });
    response.writeHead(200, { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" });
    response.end(method === "POST" ? DONE : ASK);
  }

  return {
    async handle({ path, traceId }, request, response) {
      const link = UNSUBSCRIBE.exec(path);
      if (link) {
        await unsubscribe(link, request, response);
        return true;
      }
      const channel = served.get(path);
      if (!channel) return false;
      if (request.method === "GET" && path === "/webhooks/whatsapp") {
        const challenge = metaVerifyToken === undefined ? undefined : answerChallenge(request.url ?? "", metaVerifyToken);
        if (challenge === undefined) throw new Refusal("PERMISSION_DENIED", "the verify token is not ours");
        response.writeHead(200, { "content-type": "text/plain" }).end(challenge);
        return true;
      }
      if (request.method !== "POST")
        throw new Refusal("METHOD_NOT_ALLOWED", `${request.method} is not for this path; use POST`, { allow: "POST" });
      const name = `POST ${path}`;
      for (const report of await read(channel, name, traceId, request)) await takeOnce(channel, report, name, traceId);
      response.writeHead(200).end();
      return true;
    },
    methodsOf,
    names: [...[...served.keys()].flatMap((path) => methodsOf(path).map((method) => `${method} ${path}`)), ...UNSUBSCRIBE_NAMES],
  };
}

function isSame(one: string, other: string): boolean {
  const [left, right] = [Buffer.from(one), Buffer.from(other)];
  return left.length === right.length && timingSafeEqual(left, right);
}

const page = (body: string) =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Emails</title><body>${body}</body></html>`;
/** Programs that look at links must change nothing by it: only the button does. */
const ASK = page('<form method="post"><p>Do you want no more emails about your orders?</p><button>Unsubscribe</button></form>');
const DONE = page(
  "<p>You will get no more emails about your orders. Choosing email again in your notification settings brings them back.</p>",
);
