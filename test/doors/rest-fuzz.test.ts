import { Agent, type IncomingHttpHeaders, request } from "node:http";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OPERATOR } from "./grpc-calls.ts";
import { restCall } from "./malformed-requests.ts";
import { type OpenDoors, openDoors } from "./open-doors.ts";

const RUNS = 600;

describe("the REST door, whatever it is sent", () => {
  let doors: OpenDoors;
  const agent = new Agent({ keepAlive: true });
  beforeAll(async () => {
    doors = await openDoors();
  });
  afterAll(async () => {
    agent.destroy();
    await doors[Symbol.asyncDispose]();
  });

  it("never has a fault, and refuses with the documented body", async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(restCall, async ({ method, path, body, type }) => {
        const answer = await send(new URL(doors.http.url), agent, { method, path, type }, body);
        expect(answer.status, answer.text).toBeLessThan(500);
        if (answer.status < 400 || method === "HEAD") return;
        refused += 1;
        const error = JSON.parse(answer.text);
        expect(Object.keys(error).filter((key) => key !== "violations")).toEqual(["detail", "code", "timestamp", "path"]);
        expect(error.path).toBe(path.split("?")[0]);
        expect(error.code).toMatch(/^[A-Z_]+$/);
        expect("violations" in error).toBe(error.code === "VALIDATION_FAILED");
        for (const violation of error.violations ?? []) expect(Object.keys(violation).sort()).toEqual(["detail", "field", "rule"]);
      }),
      { numRuns: RUNS },
    );
    expect(refused).toBeGreaterThan(RUNS / 4);
    expect(doors.logged.filter(({ level }) => level >= 50)).toEqual([]);
  });
});

type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly text: string };

/** Sends a request as it is: fetch would tidy the path. */
function send(
  { hostname, port }: URL,
  agent: Agent,
  { method, path, type }: { method: string; path: string; type: string },
  body: string | Buffer,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        hostname,
        port,
        agent,
        method,
        path,
        headers: { authorization: OPERATOR, "content-type": type, "content-length": Buffer.byteLength(body) },
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
        incoming.on("end", () =>
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text: Buffer.concat(chunks).toString() }),
        );
        incoming.on("error", reject);
      },
    );
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}
