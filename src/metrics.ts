import { Counter, Registry } from "prom-client";
import type { Courier } from "./couriers/courier.ts";
import { DeliveryProvider } from "./gen/ordertrail/events/v1/values_pb.js";

/** What this process counts, for Prometheus. Nothing of orders or people is in it. */
export type Metrics = {
  readonly contentType: string;
  /** All of it as it stands, in Prometheus's text format. */
  text(): Promise<string>;
};

/** The metrics of a process with these couriers. */
export function createMetrics(couriers: readonly Courier[]): Metrics {
  const registry = new Registry();
  const calls = new Counter({
    name: "ordertrail_provider_calls_total",
    help: "Attempts to call a delivery provider, by operation and by outcome: ok, or the code of the failure.",
    labelNames: ["provider", "operation", "outcome"],
    registers: [registry],
  });
  const seconds = new Counter({
    name: "ordertrail_provider_call_seconds_total",
    help: "Time that the attempts took.",
    labelNames: ["provider", "operation"],
    registers: [registry],
  });

  /** The couriers have counted: what they tell is put in place of what was there. */
  function readCouriers(): void {
    calls.reset();
    seconds.reset();
    for (const courier of couriers) {
      const provider = String(DeliveryProvider[courier.provider]).toLowerCase();
      for (const { operation, calls: count, failures, totalMs } of courier.metrics()) {
        const failed = Object.values(failures).reduce((sum, some) => sum + some, 0);
        calls.inc({ provider, operation, outcome: "ok" }, count - failed);
        for (const [outcome, some] of Object.entries(failures)) calls.inc({ provider, operation, outcome }, some);
        seconds.inc({ provider, operation }, totalMs / 1000);
      }
    }
  }

  return {
    contentType: registry.contentType,
    async text() {
      readCouriers();
      return await registry.metrics();
    },
  };
}
