import { expect, it } from "vitest";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { fail, REQUEST, startSandboxed } from "../couriers/sandboxed.ts";
import { startTestApp } from "../support/app.ts";

it("/metrics tells auditors and operators how calls to providers went, and anybody when it is public", async () => {
  await using sandboxed = await startSandboxed();
  const { uber, doordash, sandbox } = sandboxed;
  await using app = await startTestApp({}, undefined, { couriers: [uber, doordash] });
  const signal = new AbortController().signal;
  await fail(sandbox.uber.settings.baseUrl, "quote", 500, 1);
  await Promise.all([uber.quote(REQUEST, signal), doordash.quote(REQUEST, signal)]);
  const answer = await app.get({ role: Role.AUDITOR, subject: "a" }, "/metrics");
  expect([answer.status, answer.headers.get("content-type")]).toEqual([200, expect.stringContaining("text/plain")]);
  const text = await answer.text();
  expect(text).toMatch(/^ordertrail_provider_calls_total\{provider="uber",operation="quote",outcome="ok"\} 1$/m);
  expect(text).toMatch(/^ordertrail_provider_calls_total\{provider="uber",operation="quote",outcome="[a-z_0-9]+"\} 1$/m);
  expect(text).toMatch(/^ordertrail_provider_call_seconds_total\{provider="doordash",operation="quote"\} 0\.\d+$/m);
  expect(text).not.toContain("order-1");
  expect((await app.get("", "/metrics")).status).toBe(401);
  expect((await app.get({ role: Role.SERVICE, subject: "checkout" }, "/metrics")).status).toBe(403);
  await using open = await startTestApp({ METRICS_PUBLIC: "true" });
  expect((await open.get("", "/metrics")).status).toBe(200);
});
