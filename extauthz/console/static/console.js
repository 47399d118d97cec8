// What pages do more with scripts on. Everything works without them.

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Copy the secret, and say so only when it is done.
function watchCopying() {
  for (const button of all("[data-copy]")) {
    const text = document.getElementById(button.dataset.copy);
    const status = one("[data-copied]");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        status.textContent = "Copied.";
      } catch {
        const range = document.createRange();
        range.selectNodeContents(text);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        status.textContent = "It is selected: press Ctrl+C (or ⌘C) to copy it.";
      }
    });
  }
  // A page that comes back from the browser's memory shows no secret.
  addEventListener("pagehide", () => {
    for (const part of all("[data-secret]")) part.replaceChildren("The token was shown once.");
  });
}

// Tell beside the form what the token will be able to call.
function watchForm(root) {
  const form = one("form[data-preview]", root);
  if (!form) return;
  const target = one("[data-preview-target]", root);
  let latest = 0;
  const tell = async () => {
    for (const part of all("[data-for]", form)) part.hidden = new FormData(form).get("permission") !== part.dataset.for;
    const fields = new FormData(form);
    const query = new URLSearchParams(fields.getAll("scope").map((name) => ["scope", name]));
    query.set("permission", fields.get("permission") ?? "");
    const mine = ++latest;
    const answer = await fetch(`${form.dataset.preview}?${query}`, { headers: { accept: "application/json" } });
    if (!answer.ok || mine !== latest) return;
    show(target, await answer.json(), fields.getAll("scope").length);
  };
  form.addEventListener("change", tell);
  tell();
}

function show(target, { count, routes }, chosen) {
  const line = document.createElement("p");
  line.className = "small";
  line.textContent = chosen || count ? `${count} ${count === 1 ? "kind of request" : "kinds of requests"}:` : "Choose scopes to see the requests that they open.";
  const list = document.createElement("ul");
  list.className = "list small scroll";
  list.tabIndex = 0;
  list.setAttribute("aria-label", "Requests");
  for (const route of routes.slice(0, 200)) {
    const item = document.createElement("li");
    const code = document.createElement("code");
    code.textContent = route;
    item.append(code);
    list.append(item);
  }
  target.replaceChildren(line, ...(count ? [list] : []));
}

// A choice in a list of filters is applied at once.
function watchFilters() {
  for (const form of all("form.filters")) {
    for (const select of all("select", form)) select.addEventListener("change", () => form.requestSubmit());
  }
}

// A link to a form opens it over the page, where the form is part of the page.
function watchDialogs() {
  for (const link of all("[data-dialog]")) {
    const dialog = document.getElementById(link.dataset.dialog);
    if (!dialog) continue;
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      dialog.showModal();
    });
    for (const close of all("[data-close]", dialog)) {
      close.addEventListener("click", (event) => {
        event.preventDefault();
        dialog.close();
      });
    }
  }
}

// Bring figures and charts up to date while somebody looks at them.
function watchActivity() {
  const part = one("[data-activity]");
  if (!part) return;
  const update = async () => {
    if (document.hidden) return;
    const answer = await fetch(part.dataset.activity, { headers: { accept: "application/json" } }).catch(() => null);
    if (!answer?.ok || answer.redirected) return;
    const numbers = await answer.json();
    for (const section of all("[data-chart]", part)) draw(section, numbers.charts[section.dataset.chart]);
    one("[data-live=answering]").textContent = `${numbers.answering} of ${numbers.sidecars}`;
    const at = new Date(numbers.at * 1000).toISOString();
    one("[data-live=time]").textContent = `at ${at.slice(0, 10)} ${at.slice(11, 19)} UTC`;
  };
  setInterval(update, 5000);
  addEventListener("visibilitychange", update);
}

function draw(section, chart) {
  one(`[data-live=${section.dataset.chart}]`).textContent = chart.total;
  for (const svg of all("svg", section)) {
    const paths = chart.paths[svg.classList.contains("desktop") ? "desktop" : "phone"];
    all(".layer", svg).forEach((layer, index) => layer.setAttribute("d", paths[index] ?? ""));
    all(".scale", svg).forEach((text, index) => { text.textContent = chart.scale[index]; });
    one("desc", svg).textContent = chart.description;
  }
  all("tbody tr", section).forEach((row, index) => {
    const layer = chart.layers[index];
    row.hidden = !layer;
    [one("code", row).textContent, row.cells[1].textContent, row.cells[2].textContent] = layer ? [layer.name, layer.total, layer.last] : ["", "", ""];
  });
}

// A file of this computer is put into a field, where it can be read before it is sent.
function watchFiles() {
  for (const input of all("input[type=file][data-fill]")) {
    input.hidden = false;
    input.addEventListener("change", async () => {
      const [file] = input.files;
      const field = document.getElementById(input.dataset.fill);
      // A form takes 1 MiB.
      if (file && file.size <= 1024 * 1024) field.value = await file.text();
      input.setCustomValidity(file && file.size > 1024 * 1024 ? "This file is larger than 1 MiB." : "");
      input.reportValidity();
    });
  }
}

watchDialogs();
watchFiles();
watchCopying();
watchForm(document);
watchFilters();
watchActivity();
