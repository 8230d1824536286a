"use strict";
// A click on a column's head sorts its table: best first, then the other way round. Rows without a value stay last.
for (const table of document.querySelectorAll("table.board")) {
  const frame = table.parentElement;
  const hint = () => { frame.previousElementSibling.hidden = frame.scrollWidth <= frame.clientWidth + 1; };
  addEventListener("resize", hint);
  hint();
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const best = head.dataset.first;
      const other = best === "descending" ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === best ? other : best;
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
        if (column === 0) return sign * value(a).localeCompare(value(b), "en", { numeric: true });
        const [x, y] = [Number(value(a)), Number(value(b))];
        return x === y ? 0 : x < y ? -sign : sign;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });
}
