import { MongoClient } from "mongodb";
import { describe, expect, it } from "vitest";
import { createAppender } from "../../src/log/appender.ts";
import { createLogClient } from "../../src/log/log-client.ts";
import { createLogger } from "../../src/logger.ts";

const URL_WITHOUT_RETRIES = "mongodb://127.0.0.1:1/?retryWrites=false&socketTimeoutMS=0";

describe("a client for the log", () => {
  it("retries writes and limits silences, whatever the URL says", () => {
    const { options } = createLogClient(URL_WITHOUT_RETRIES);
    expect(options.retryWrites).toBe(true);
    expect(options.socketTimeoutMS).toBeGreaterThan(0);
  });

  it("is what an appender needs: one that does not retry writes is refused", () => {
    const client = new MongoClient(URL_WITHOUT_RETRIES);
    const limits = { maxQueuedEntries: 1, maxQueuedBytes: 1, patienceMs: 1 };
    expect(() => createAppender(client, client.db("log"), limits, createLogger("silent"))).toThrow("needs a client that retries writes");
  });
});
