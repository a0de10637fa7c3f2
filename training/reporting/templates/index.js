"use strict";
// Sorts and filters the table that is there; without this script it is a plain list, newest first.
(() => {
  const table = document.getElementById("runs");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.getElementById("filter");
  const field = (name) => document.getElementById(name);
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const valueOf = (row, column, numbers) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    return numbers ? (text === "" ? NaN : Number(text)) : text.toLowerCase();
  };

  // What is undefined stands last, whichever way is up.
  const compare = (a, b, numbers, sign) => {
    if (numbers) {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return sign * (a - b);
    }
    if (a === "–" || b === "–") return (a === "–") - (b === "–");
    return sign * a.localeCompare(b, "en", { numeric: true });
  };

  const sort = (head) => {
    const column = head.cellIndex;
    const numbers = head.dataset.sorts === "number";
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const keyed = rows.map((row) => [valueOf(row, column, numbers), row]);
    keyed.sort(([a], [b]) => compare(a, b, numbers, sign));
    body.append(...keyed.map(([, row]) => row));
  };

  const filter = () => {
    const wanted = field("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits =
        wanted.every((word) => words.get(row).includes(word)) &&
        (!field("task").value || row.dataset.task === field("task").value) &&
        (!field("state").value || row.dataset.state === field("state").value) &&
        (field("sample").checked || !("sample" in row.dataset));
      row.hidden = !fits;
      shown += fits;
    }
    field("shown").textContent = shown === rows.length ? "" : `${shown} of ${rows.length} runs`;
    field("none").hidden = shown > 0;
  };

  for (const head of table.tHead.querySelectorAll("[data-sorts]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.append(button);
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  field("clear").addEventListener("click", () => {
    form.reset();
    filter();
    field("words").focus();
  });
  form.hidden = false;
  filter(); // a browser that goes back keeps what was typed
})();
