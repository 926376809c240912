import { readFile } from "node:fs/promises";
import { expect, it } from "vitest";
import { ORDER_STATES_PAGE, orderStatesPage } from "../../tools/order-states.ts";

it("docs/order-states.md is made from the table as it is (node tools/order-states.ts writes it)", async () => {
  expect(await readFile(ORDER_STATES_PAGE, "utf8")).toBe(orderStatesPage());
});
