// The page's words in English and Chinese, and the settings with their explanations. Touches nothing.

export const LANGUAGES = {
  en: {
    skip: "Skip to the text", write: "Write", chat: "Chat", report: "Report", corpus: "Corpus", theme: "Light or dark",
    gone: "The server does not answer. What has been written stays here.", retry: "Try again",
    keyTitle: "This server asks for a key", key: "Key", use: "Use it", keyWrong: "This key is not valid.",
    keyWhy: "Its owner makes one with: textmill keys create NAME. It is kept until you close this tab.",
    model: "Model", settings: "Settings", prompt: "Beginning of the text", message: "Your message", go: "Write",
    send: "Send", stop: "Stop", compare: "Side by side", clear: "Start anew", you: "You",
    promptHint: "Once upon a time", hint: "Ctrl+Enter", shade: "Shade surprising tokens",
    empty: "The model goes on from what you write below. Click any token that it writes to see how likely it was, and what would have come instead.",
    emptyChat: "Say something. Click any token of the answer to see how likely it was, and what would have come instead.",
    base: "A base model: it continues text, it does not answer.",
    noWriter: "No model here writes text. Serve one that does: textmill serve runs/mine",
    noRun: "None of the models here belongs to a run, so there is neither a report nor a corpus. Serve a run: textmill serve runs/mine",
    token: "Token", likely: "likely", surprise: "bits of surprise", place: (n) => `choice number ${n}`,
    beyond: (n) => `not among the ${n} likeliest`, settled: "By the model's own probabilities, before the settings cut or sharpen them.",
    pieces: (n) => `This character is made of ${n} tokens.`, alternatives: "Alternatives", close: "Close",
    follow: "What would have followed", followHint: "Choose an alternative to see what would have followed.",
    takeOver: "Go on from here", back: "Back to the former text", none: "(nothing: the text would end)",
    tokens: (n, s) => `${n} tokens, ${s} a second`, ended: { stop: "ended by itself", length: "as long as asked for", stopped: "stopped", broken: "cut off" },
    search: "Search", split: "Part", all: "all", train: "training", validation: "validation", test: "test", more: "More",
    whole: "Whole text", less: "Less", nothing: "No document holds that.", characters: "characters", wait: "Reading …",
    refused: "The server refused this:",
  },
  zh: {
    skip: "跳到正文", write: "写作", chat: "对话", report: "报告", corpus: "语料", theme: "浅色或深色",
    gone: "服务器没有回应。已经写出的内容还在这里。", retry: "再试一次",
    keyTitle: "这个服务器需要密钥", key: "密钥", use: "使用", keyWrong: "密钥无效。",
    keyWhy: "由服务器的主人创建：textmill keys create NAME。密钥保留到你关闭这个标签页为止。",
    model: "模型", settings: "设置", prompt: "文章的开头", message: "你的话", go: "续写",
    send: "发送", stop: "停止", compare: "并排比较", clear: "重新开始", you: "你",
    promptHint: "天下大势", hint: "Ctrl+回车", shade: "给意外的词元加底色",
    empty: "在下面写一个开头，模型会接着写。点击它写出的任何词元，可以看到它的概率，以及换一个词元会怎样。",
    emptyChat: "说点什么吧。点击回答里的任何词元，可以看到它的概率，以及换一个词元会怎样。",
    base: "这是基础模型：它只会续写，不会回答。",
    noWriter: "这里没有会写文字的模型。请提供一个：textmill serve runs/mine",
    noRun: "这里的模型都不属于某次运行，所以没有报告和语料。请直接提供一次运行：textmill serve runs/mine",
    token: "词元", likely: "概率", surprise: "比特意外度", place: (n) => `第 ${n} 选择`,
    beyond: (n) => `不在最可能的 ${n} 个之中`, settled: "这是模型自身的概率，未经各项设置截断或调整。",
    pieces: (n) => `这个字由 ${n} 个词元组成。`, alternatives: "其他可能", close: "关闭",
    follow: "接下来会是", followHint: "选一个其他可能，看看接下来会写什么。",
    takeOver: "从这里接着写", back: "回到原来的文字", none: "（什么也没有：文章到此为止）",
    tokens: (n, s) => `${n} 个词元，每秒 ${s} 个`, ended: { stop: "自然结束", length: "已达到所要的长度", stopped: "已停止", broken: "中断" },
    search: "搜索", split: "部分", all: "全部", train: "训练", validation: "验证", test: "测试", more: "更多",
    whole: "全文", less: "收起", nothing: "没有文档包含它。", characters: "字符", wait: "读取中……",
    refused: "服务器拒绝了这个请求：",
  },
};

// name, value that does nothing (null: none), default, min, max, step, then label and explanation in English and Chinese
export const SETTINGS = [
  ["temperature", null, 0.8, 0, 2, 0.05,
    "Temperature", "Below 1 safer, above 1 wilder; 0 always takes the likeliest token.",
    "温度", "小于 1 更稳妥，大于 1 更大胆；0 总是取最可能的词元。"],
  ["max_tokens", null, 200, 1, 4096, 1, "Length", "Write at most this many tokens.", "长度", "最多写这么多词元。"],
  ["min_p", 0, 0.05, 0, 1, 0.01,
    "Minimum share", "Drops tokens less likely than this share of the likeliest one. 0 drops none.",
    "最小占比", "去掉概率低于最可能词元这一比例的词元。0 表示不去掉。"],
  ["top_p", 1, 1, 0.01, 1, 0.01,
    "Top share", "Keeps the likeliest tokens that together hold this probability. 1 keeps all.",
    "累积概率", "只保留合计达到这一概率的最可能词元。1 表示全部保留。"],
  ["top_k", 0, 0, 0, 1000, 1,
    "Top tokens", "Keeps only so many of the likeliest tokens. 0 keeps all.",
    "候选个数", "只保留这么多个最可能的词元。0 表示全部保留。"],
  ["repetition_penalty", 1, 1, 0.5, 2, 0.05,
    "Repetition penalty", "Above 1 makes tokens that were there before less likely.",
    "重复惩罚", "大于 1 时，出现过的词元更不容易再出现。"],
  ["dry_multiplier", 0, 0, 0, 5, 0.1,
    "Against loops", "Punishes only what would lengthen a repetition (DRY). Try 0.8.",
    "防止循环", "只惩罚会延长重复片段的词元（DRY）。可试 0.8。"],
  ["seed", null, "", 0, 4294967295, 1,
    "Seed", "The same number gives the same text. Empty: another text each time.",
    "种子", "同一个数字写出同样的文字。留空则每次不同。"],
];

let chosen = null;

export function language() {
  if (chosen) return chosen;
  let kept = null;
  try { kept = localStorage.getItem("textmill.language"); } catch { /* private windows */ }
  chosen = kept ?? ((navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en");
  return chosen;
}

export function setLanguage(name) {
  chosen = name;
  try { localStorage.setItem("textmill.language", name); } catch { /* it holds for this visit */ }
}

export function t(name, ...given) {
  const found = LANGUAGES[language()][name];
  return typeof found === "function" ? found(...given) : found;
}
