import type { OrderState } from "../domain/order.ts";
import type { News } from "../live/watch.ts";
import type { Snapshot, Transactor } from "../log/transact.ts";
import { foldOrder } from "../projections/order-tracking-writer.ts";

/** An order after what a watcher of its stream was told. Where news were missed it is read again. */
export async function orderAfterNews(
  order: Snapshot<OrderState>,
  news: News,
  orders: Pick<Transactor<OrderState>, "read">,
): Promise<Snapshot<OrderState>> {
  if (news.kind === "quiet") return order;
  const upTo = news.kind === "entry" ? news.recorded.entry.version : news.upTo;
  if (upTo <= order.version) return order;
  if (news.kind === "entry" && upTo === order.version + 1) return foldOrder(order, news.recorded);
  return (await orders.read(order.state.orderId)) ?? order;
}
