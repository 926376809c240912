import { LRUCache } from "lru-cache";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { ProviderCalls } from "./channels/provider-calls.ts";
import type { Courier } from "./couriers/courier.ts";
import { orderStream } from "./domain/order.ts";
import { statusAfter } from "./domain/order-moves.ts";
import type { Event } from "./gen/ordertrail/events/v1/log_entry_pb.js";
import {
  NotificationCategory,
  NotificationChannel,
  NotificationReason,
  NotificationReport,
} from "./gen/ordertrail/events/v1/notification_events_pb.js";
import { DeliveryProvider, OrderStatus } from "./gen/ordertrail/events/v1/values_pb.js";
import type { AppendListener } from "./log/appender.ts";
import type { Sender } from "./notifications/sender.ts";
import type { Projector } from "./projections/projector.ts";

/** What this process counts, for Prometheus. Nothing of orders or people is in it. */
export type Metrics = {
  readonly contentType: string;
  /** All of it as it stands, in Prometheus's text format. */
  text(): Promise<string>;
};

export type MetricsParts = {
  readonly couriers: readonly Courier[];
  readonly providerCalls: ProviderCalls;
  readonly projector: Pick<Projector, "states">;
  readonly head: () => Promise<number>;
  /** Calls back with what this process appends: together, the processes count every entry once. */
  readonly onAppended: (listener: AppendListener) => () => void;
  readonly notifier: { readonly sender: Pick<Sender, "counts">; pending(): number };
};

/** Of so many orders it is remembered since when they have been where they are. */
const REMEMBERED_ORDERS = 50_000;
const REMEMBERED_MESSAGES = 50_000;
/** From seconds to a day: an order's steps. */
const STEP_BUCKETS = [1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600, 86_400];

type Step = { readonly status: OrderStatus; readonly atMs: number };

/** The metrics of a process. */
export function createMetrics(parts: MetricsParts): Metrics {
  const registry = new Registry();
  const registers = [registry];
  countEntries(parts.onAppended, registry);
  const calls = new Counter({
    name: "ordertrail_provider_calls_total",
    help: "Attempts to call a provider, by operation and by outcome: ok, or the code of the failure.",
    labelNames: ["provider", "operation", "outcome"],
    registers,
  });
  const seconds = new Counter({
    name: "ordertrail_provider_call_seconds_total",
    help: "Time that the attempts took.",
    labelNames: ["provider", "operation"],
    registers,
  });
  const lag = new Gauge({
    name: "ordertrail_projection_lag_entries",
    help: "Entries of the log that a projection has yet to read.",
    labelNames: ["projection"],
    registers,
  });
  const head = new Gauge({ name: "ordertrail_log_position", help: "The newest position of the log.", registers });
  const pending = new Gauge({
    name: "ordertrail_notifier_pending_entries",
    help: "Entries that nobody has looked at for messages, as this process last heard.",
    registers,
  });
  const queue = new Gauge({
    name: "ordertrail_notifications_queued",
    help: "Orders with messages that wait here for room, and messages that are with a provider.",
    labelNames: ["channel", "state"],
    registers,
  });

  /** Others have counted: what they tell is put in place of what was there. */
  function readProviders(): void {
    calls.reset();
    seconds.reset();
    for (const courier of parts.couriers) {
      const provider = String(DeliveryProvider[courier.provider]).toLowerCase();
      for (const { operation, calls: count, failures, totalMs } of courier.metrics()) {
        const failed = Object.values(failures).reduce((sum, some) => sum + some, 0);
        calls.inc({ provider, operation, outcome: "ok" }, count - failed);
        for (const [outcome, some] of Object.entries(failures)) calls.inc({ provider, operation, outcome }, some);
        seconds.inc({ provider, operation }, totalMs / 1000);
      }
    }
    for (const { provider, outcome, calls: count, totalMs } of parts.providerCalls.read()) {
      calls.inc({ provider, operation: "send", outcome }, count);
      seconds.inc({ provider, operation: "send" }, totalMs / 1000);
    }
  }

  async function readLags(): Promise<void> {
    const [newest, states] = await Promise.all([parts.head(), parts.projector.states()]);
    head.set(newest);
    for (const { name, position } of states) lag.set({ projection: name }, Math.max(0, newest - position));
    pending.set(parts.notifier.pending());
    for (const { channel, waiting, underWay } of parts.notifier.sender.counts()) {
      queue.set({ channel: labelOf(NotificationChannel[channel]), state: "waiting" }, waiting);
      queue.set({ channel: labelOf(NotificationChannel[channel]), state: "under_way" }, underWay);
    }
  }

  return {
    contentType: registry.contentType,
    async text() {
      readProviders();
      await readLags();
      return await registry.metrics();
    },
  };
}

/** Counts what entries tell: how long orders take from step to step, and what becomes of messages. */
function countEntries(onAppended: MetricsParts["onAppended"], registry: Registry): void {
  const registers = [registry];
  const steps = new Histogram({
    name: "ordertrail_order_transition_seconds",
    help: "How long orders were in a status before they came to the next. The store's acknowledgment is that from STORE_NOTIFIED to STORE_ACKNOWLEDGED.",
    labelNames: ["from", "to"],
    buckets: STEP_BUCKETS,
    registers,
  });
  const moves = new Counter({
    name: "ordertrail_order_transitions_total",
    help: "How many orders have come to a status: completed deliveries are those to DELIVERED.",
    labelNames: ["to"],
    registers,
  });
  const messages = new Counter({
    name: "ordertrail_notifications_total",
    help: "What became of messages, by channel and category: planned, accepted, held, failed, unknown, suppressed, delivered, read, bounced.",
    labelNames: ["channel", "category", "outcome", "reason"],
    registers,
  });
  const known = new LRUCache<string, Step>({ max: REMEMBERED_ORDERS });
  const kinds = new LRUCache<string, { readonly channel: string; readonly category: string }>({ max: REMEMBERED_MESSAGES });

  function countOrder(stream: string, event: Event, atMs: number): void {
    const status = statusAfter(event);
    if (status === undefined) return;
    const before = known.get(stream);
    if (before && before.status !== status)
      steps.observe({ from: OrderStatus[before.status], to: OrderStatus[status] }, Math.max(0, atMs - before.atMs) / 1000);
    if (before?.status !== status) {
      moves.inc({ to: OrderStatus[status] });
      known.set(stream, { status, atMs });
    }
  }

  function countMessage({ kind }: Event): void {
    const told = outcomeOf(kind);
    if (!told) return;
    if (kind.case === "notificationPlanned")
      kinds.set(told.messageId, {
        channel: labelOf(NotificationChannel[kind.value.channel]),
        category: labelOf(NotificationCategory[kind.value.category]),
      });
    // A message's identifier ends with its channel.
    const { channel, category } = kinds.get(told.messageId) ?? { channel: told.messageId.split(".")[2] ?? "none", category: "unknown" };
    messages.inc({ channel, category, outcome: told.outcome, reason: told.reason ?? "" });
  }

  onAppended((entries) => {
    for (const { entry } of entries) {
      const isOrder = entry.stream.startsWith(orderStream(""));
      const atMs = entry.recordedAt ? Number(entry.recordedAt.seconds) * 1000 + entry.recordedAt.nanos / 1_000_000 : 0;
      for (const event of entry.events) {
        if (isOrder) countOrder(entry.stream, event, atMs);
        else countMessage(event);
      }
    }
  });
}

function outcomeOf(kind: Event["kind"]): { readonly messageId: string; readonly outcome: string; readonly reason?: string } | undefined {
  switch (kind.case) {
    case "notificationPlanned":
      return { messageId: kind.value.messageId, outcome: "planned" };
    case "notificationAccepted":
      return { messageId: kind.value.messageId, outcome: "accepted" };
    case "notificationHeld":
      return { messageId: kind.value.messageId, outcome: "held", reason: labelOf(NotificationReason[kind.value.reason]) };
    case "notificationFailed":
      return { messageId: kind.value.messageId, outcome: "failed", reason: kind.value.code };
    case "notificationOutcomeUnknown":
      return { messageId: kind.value.messageId, outcome: "unknown", reason: kind.value.code };
    case "notificationSuppressed":
      return { messageId: kind.value.messageId, outcome: "suppressed", reason: labelOf(NotificationReason[kind.value.reason]) };
    case "notificationReported":
      return { messageId: kind.value.messageId, outcome: labelOf(NotificationReport[kind.value.report]) };
    default:
      return undefined;
  }
}

function labelOf(name: string | undefined): string {
  return (name ?? "unknown").toLowerCase();
}
